"""`kcm labels`: the few items that are worth a person's label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.views.labels import SKIP, STOP
from kcm.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.loop.certify.inbox import Inbox
from pipelines.loop.labelling import opened_inbox
from pipelines.serve.log.inbox import InboxItem


def labels(
    config: RunConfig,
    *,
    given: Sequence[str] = (),
    skipped: Sequence[str] = (),
    export: Path | None = None,
    taken: Path | None = None,
    limit: int = 10,
    ask: Callable[[InboxItem, Sequence[str]], str] | None = None,
) -> dict[str, Any]:
    """Store labels `ID=LABEL` and skips, those of a file, and what `ask` returns for one item after the other.

    `ask` gives the number of a label, from 1, or one of the keys to skip and to stop. Gives the open items, `limit` at
    the most, and what the labels so far certify. Raises DataError for what cannot be stored; nothing is stored then.
    """
    answers: dict[str, str | None] = dict(_assigned(given)) | dict.fromkeys(skipped)
    with opened_inbox(config) as inbox:
        stored = 0
        if answers:
            inbox.answer(answers)
            stored += len(answers)
        if taken is not None:
            stored += inbox.take(taken)
        if ask is not None:
            stored += _asked(inbox, ask)
        exported = None if export is None else inbox.export(export)
        return {
            "version": inbox.plan.version,
            "labels": list(inbox.plan.labels),
            "stored": stored,
            "exported": exported,
            "standing": asdict(inbox.standing()),
            "items": [_plain(each) for each in inbox.items("drawn", limit)],
        }


def _asked(inbox: Inbox, ask: Callable[[InboxItem, Sequence[str]], str]) -> int:
    """Items that were answered, until the person stops or no further label is needed."""
    stored = 0
    for each in inbox.items("drawn"):
        if inbox.standing().certified:
            break
        key = ask(each, inbox.plan.labels)
        if key == STOP:
            break
        inbox.answer({each.id: None if key == SKIP else inbox.plan.labels[int(key) - 1]})
        stored += 1
    return stored


def _assigned(given: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [each.partition("=") for each in given]
    if bad := [item for item, sign, label in pairs if not (item and sign and label)]:
        raise ConfigError(f"{bad[0]!r} names no label", where="--label", hint="Write ID=LABEL")
    return [(item, label) for item, _, label in pairs]


def _plain(item: InboxItem) -> dict[str, Any]:
    values = asdict(item)
    image = values.pop("image")
    return values | {"answered_at": item.answered_at.isoformat(), "has_image": image is not None}
