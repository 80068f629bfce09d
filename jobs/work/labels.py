"""What `kcm labels` does: name new classes, store the labels of drawn items, and say what the labels certify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kcm.certification.labelled import noise_bound
from pipelines.config import RunConfig
from pipelines.loop.gates.items_to_label import drawn_for
from pipelines.loop.gates.label_files import read_answers, write_items
from pipelines.loop.window.groups import known_labels, new_groups
from pipelines.loop.window.naming import ClassNames


def new_labels_of(
    config: RunConfig,
    name: Sequence[str] = (),
    withdraw: Sequence[str] = (),
    same: Sequence[str] = (),
    *,
    groups: bool = True,
) -> dict[str, Any]:
    """Name labels for new classes, map names to existing labels (`same`, NAME=LABEL), or withdraw any.

    Returns the resulting names, with groups that may be new classes if requested. Raises DataError, before anything is
    stored, if the log holds no features for grouping; ConfigError for an existing or unknown label, or a missing group.
    """
    names = ClassNames.of(config)
    pairs = [(group_name.strip(), label.strip()) for group_name, _, label in (pair.partition("=") for pair in same)]
    known_names = known_labels(config) if name or same else ()
    proposed = [group_name for group_name, _ in pairs if group_name not in (*names.labels(), *known_names)]
    item_groups = new_groups(config) if groups or proposed else []
    for taken_back in withdraw:
        names.withdraw(taken_back)
    for label in name:
        names.name(label, known_names)
    for group_name, label in pairs:
        names.identify(group_name, label, known_names, item_groups)
    result: dict[str, Any] = {"named": list(names.labels()), "same": names.same()}
    if groups:
        result["groups"] = [
            {key: value for key, value in asdict(group).items() if key != "items"} for group in item_groups
        ]
    return result


def labels_of(
    config: RunConfig, *, out: Path | None = None, taken: Path | None = None, check: Path | None = None, limit: int = 10
) -> dict[str, Any]:
    """Store the labels of the file `taken`, write all items to the file `out`; returns what the labels certify.

    The file `check` holds other people's answers to some of the items. They bound how often labels are wrong and are
    not stored. Returns also the first `limit` open items. Raises DataError, and stores nothing, for labels that cannot
    be stored.
    """
    with drawn_for(config) as drawn_items:
        answers, check_answers = ({} if file is None else read_answers(file) for file in (taken, check))
        drawn_items.answer(answers)
        items = drawn_items.items()
        if out is not None:
            write_items(items, out)
        labels_by_id = {item.id: item.label for item in items if item.label is not None}
        pairs = [
            labels_by_id[name] != label
            for name, label in check_answers.items()
            if name in labels_by_id and label is not None
        ]
        noise = noise_bound(len(pairs), sum(pairs))
        open_items = [item for item in items if item.state == "drawn"]
        return {
            "version": drawn_items.plan.version,
            "labels": list(drawn_items.plan.labels),
            "stored": len(answers),
            "written": None if out is None else len(items),
            "checked": check and {"pairs": len(pairs), "differ": sum(pairs), "noise": noise},
            "standing": asdict(drawn_items.standing()),
            "items": [
                {"id": item.id, "task": item.task, "text": item.text, "has_image": item.image is not None}
                for item in open_items[:limit]
            ],
        }
