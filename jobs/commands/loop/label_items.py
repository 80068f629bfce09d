"""What `kcm labels` does: name new classes, store the labels of drawn items, and say what the labels certify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kcm.certification.labelled import noise_bound
from pipelines.config import RunConfig
from pipelines.loop.gates.drawn import drawn_for
from pipelines.loop.gates.label_files import read_answers, write_items
from pipelines.loop.window.groups import known_labels, new_groups
from pipelines.loop.window.naming import ClassNames


def new_labels_of(
    config: RunConfig,
    name: Sequence[str] = (),
    withdraw: Sequence[str] = (),
    ignore: Sequence[str] = (),
    same: Sequence[str] = (),
    *,
    groups: bool = True,
) -> dict[str, Any]:
    """Name labels for new classes, say which are labels that exist (`same`, NAME=LABEL) and which groups are none, and
    take any of it back; what stands then.

    If asked for, with the groups that may be new classes. Raises DataError where the log holds no features to group by,
    before anything is stored; ConfigError for a label that exists or was not named, or a group that is not there.
    """
    names = ClassNames.of(config)
    pairs = [(given.strip(), label.strip()) for given, _, label in (pair.partition("=") for pair in same)]
    known = known_labels(config) if name or same else ()
    proposed = [*ignore, *(given for given, _ in pairs if given not in (*names.labels(), *known))]
    found = new_groups(config) if groups or proposed else []
    for group in ignore:
        names.ignore(group, found)
    for taken_back in withdraw:
        names.withdraw(taken_back)
    for label in name:
        names.name(label, known)
    for given, label in pairs:
        names.identify(given, label, known, found)
    result: dict[str, Any] = {"named": list(names.labels()), "same": names.same(), "ignored": list(names.ignored())}
    if groups:
        shown = names.without_ignored(found)
        result["groups"] = [
            {key: value for key, value in asdict(group).items() if key not in ("centre", "items")} for group in shown
        ]
    return result


def labels_of(
    config: RunConfig, *, out: Path | None = None, taken: Path | None = None, check: Path | None = None, limit: int = 10
) -> dict[str, Any]:
    """Store the labels of the file `taken`, write all items to the file `out`, and say what the labels so far certify.

    The file `check` holds other people's answers to some of the items, which bound how often labels are wrong; none of
    them is stored. Gives the first open items, `limit` at the most. Raises DataError for what cannot be stored; nothing
    is stored then.
    """
    with drawn_for(config) as drawn:
        answers, second = ({} if file is None else read_answers(file) for file in (taken, check))
        drawn.answer(answers)
        items = drawn.items()
        if out is not None:
            write_items(items, out)
        given = {item.id: item.label for item in items if item.label is not None}
        pairs = [given[name] != label for name, label in second.items() if name in given and label is not None]
        noise = noise_bound(len(pairs), sum(pairs))
        open_items = [item for item in items if item.state == "drawn"]
        return {
            "version": drawn.plan.version,
            "labels": list(drawn.plan.labels),
            "stored": len(answers),
            "written": None if out is None else len(items),
            "checked": check and {"pairs": len(pairs), "differ": sum(pairs), "noise": noise},
            "standing": asdict(drawn.standing()),
            "items": [
                {"id": item.id, "task": item.task, "text": item.text, "has_image": item.image is not None}
                for item in open_items[:limit]
            ],
        }
