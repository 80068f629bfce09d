"""`kcm labels`: the few items that are worth a person's label, out to a file and back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipelines.config import RunConfig
from pipelines.loop.inbox import opened_inbox
from pipelines.loop.label_files import read_answers, write_items


def labels(config: RunConfig, *, out: Path | None = None, taken: Path | None = None, limit: int = 10) -> dict[str, Any]:
    """Store the labels of the file `taken`, write all items to the file `out`, and say what the labels so far certify.

    Gives the first open items, `limit` at the most. Raises DataError for what cannot be stored; nothing is stored then.
    """
    with opened_inbox(config) as inbox:
        answers = {} if taken is None else read_answers(taken)
        inbox.answer(answers)
        items = inbox.items()
        if out is not None:
            write_items(items, out)
        open_items = [item for item in items if item.state == "drawn"]
        return {
            "version": inbox.plan.version,
            "labels": list(inbox.plan.labels),
            "stored": len(answers),
            "written": None if out is None else len(items),
            "standing": asdict(inbox.standing()),
            "items": [
                {"id": item.id, "task": item.task, "text": item.text, "has_image": item.image is not None}
                for item in open_items[:limit]
            ],
        }
