"""What `kcm labels` does: name new classes, store the labels of drawn items, and say what the labels certify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.views.loop import labels_view, new_labels_view
from jobs.views.table import result_console
from pipelines.config import RunConfig
from pipelines.loop.gates.items_to_label import drawn_for
from pipelines.loop.gates.label_files import read_answers, write_items
from pipelines.loop.state import LoopState
from pipelines.loop.window.naming import ClassNames
from pipelines.stages.parent import Parent


def new_labels(config: RunConfig, name: Sequence[str], withdraw: Sequence[str]) -> dict[str, Any]:
    """Name labels for new classes, or withdraw them.

    Prints and returns the resulting names. Raises ConfigError for an existing or unknown label.
    """
    names = ClassNames.of(config)
    known_labels = champion_labels(config) if name else ()
    for taken_back in withdraw:
        names.withdraw(taken_back)
    for label in name:
        names.name(label, known_labels)
    result = {"named": list(names.labels())}
    result_console().print(new_labels_view(result))
    return result


def champion_labels(config: RunConfig) -> tuple[str, ...]:
    """The labels that the champion answers with."""
    state = LoopState.of(config)
    return Parent.of(state.store, state.champions.present().champion).bundle.answer_names


def labels(config: RunConfig, *, out: Path | None = None, taken: Path | None = None, limit: int = 10) -> dict[str, Any]:
    """Store the labels of the file `taken`, write all items to the file `out`; prints and returns what labels certify.

    Returns also the first `limit` open items. Raises DataError, and stores nothing, for labels that cannot
    be stored.
    """
    with drawn_for(config) as drawn_items:
        answers = {} if taken is None else read_answers(taken)
        drawn_items.answer(answers)
        items = drawn_items.items()
        if out is not None:
            write_items(items, out)
        open_items = [item for item in items if item.state == "drawn"]
        result = {
            "version": drawn_items.plan.version,
            "labels": list(drawn_items.plan.labels),
            "stored": len(answers),
            "written": None if out is None else len(items),
            "standing": asdict(drawn_items.standing()),
            "items": [
                {"id": item.id, "task": item.task, "text": item.text, "has_image": item.image is not None}
                for item in open_items[:limit]
            ],
        }
    result_console().print(labels_view(result))
    return result
