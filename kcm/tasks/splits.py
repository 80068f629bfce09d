"""Splits that share no content and no group, drawn by hash so that rows added later move no row already there.

Rows with the same content (text, picture or both), or of the same group, form one unit; a unit lies in one split as a
whole, in every task that has rows of it. Splits that come with the data are honoured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from kcm.tasks.hashing import draw
from kcm.tasks.needs import Draft
from kcm.tasks.rows import BadRow, Row
from kcm.tasks.units import Unit, content_key, find_units

Split = Literal["train", "validate", "certify", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
_PRIORITY: tuple[Split, ...] = ("test", "certify", "validate", "train")


def _whole(fractions: dict[Split, float]) -> dict[Split, float]:
    if missing := [split for split in SPLITS if split not in fractions]:
        raise ValueError(f"no fraction for {', '.join(missing)}")
    if min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"fractions must be positive and sum to 1, not to {sum(fractions.values()):g}")
    return fractions


Fractions = Annotated[dict[Split, float], AfterValidator(_whole)]
DEFAULT_FRACTIONS: dict[Split, float] = {"train": 0.5, "validate": 0.15, "certify": 0.15, "test": 0.2}


def purpose(salt: str, unit: str, fractions: Mapping[Split, float]) -> Split:
    """The split of a unit by its name alone: the rule of a decision's purpose.

    Nothing is stratified and nothing moves: units that come later change no unit's split. Another `salt` draws anew.
    """
    return _pick(draw(salt, "purpose", unit), SPLITS, fractions)


def without_overlap(rows: Sequence[Row]) -> tuple[list[Row], list[BadRow]]:
    """Drop rows whose content or group also occurs in a given split that is kept purer: test, then certify, validate.

    Rows without a given split pass unchanged.
    """
    contents: dict[str, str] = {}
    groups: dict[str, str] = {}
    dropped: dict[str, str] = {}
    for split in _PRIORITY:
        members = [row for row in rows if row.split == split]
        for row in members:
            if owner := contents.get(content_key(row)) or groups.get(row.group):
                dropped[row.id] = f"its {_part(row)} or group is also in split {owner}"
        for row in members:
            contents.setdefault(content_key(row), split)
            if row.group:
                groups.setdefault(row.group, split)
    return [row for row in rows if row.id not in dropped], [BadRow(*item) for item in dropped.items()]


def _part(row: Row) -> str:
    """The name of the part that is the content of a row."""
    return ("text and image" if row.text else "image") if row.image else "text"


def assign_splits(
    rows: Sequence[Row], tasks: Sequence[str], fractions: Mapping[Split, float], seed: int
) -> list[Split]:
    """The split of every row; `tasks` names the task of each.

    Rows without a given split are drawn by `fractions`. With given splits, `validate` and `certify` are carved from
    the given validate rows, else from train, and a missing `test` from train. Where the draw leaves a split without
    what it needs, a few units move. Rows must have passed `without_overlap`.
    """
    origins = {row.split for row in rows}
    splits: dict[int, Split] = {}
    for origin in sorted(origins):
        choices = _choices(origin, origins)
        units = find_units(rows, [position for position, row in enumerate(rows) if row.split == origin])
        units.sort(key=lambda unit: (draw(seed, "split", unit.name), unit.name))
        draft = Draft(units, _draw(units, choices, fractions, seed), rows, tasks)
        if "train" in choices:
            draft.fill_train("train")
        for split in choices:
            if split != "train":
                draft.fill_other(split, [donor for donor in choices if donor != split])
        for unit, split in zip(units, draft.splits, strict=True):
            splits.update(dict.fromkeys(unit.positions, split))
    return [splits[position] for position in range(len(rows))]


def _choices(origin: str, origins: set[str]) -> list[Split]:
    """The splits among which rows of a given split ("" for none) are shared out."""
    missing: list[Split] = [split for split in SPLITS if split not in origins]
    match origin:
        case "":
            return list(SPLITS)
        case "train":
            carved_elsewhere = {"certify"} if "validate" in origins else set()
            return ["train", *(split for split in missing if split not in carved_elsewhere)]
        case "validate":
            return ["validate", *(split for split in missing if split == "certify")]
        case _:
            return [split for split in SPLITS if split == origin]


def _draw(units: Sequence[Unit], choices: Sequence[Split], fractions: Mapping[Split, float], seed: int) -> list[Split]:
    total = sum(fractions[split] for split in choices)
    num_rows = sum(len(unit.positions) for unit in units)
    smallest = min(fractions[split] for split in choices) / total * num_rows
    drawn = []
    for unit in units:
        # Common sentences can chain many groups together; such a unit would swamp a small split.
        swamps = unit.num_groups > 1 and len(unit.positions) > smallest and "train" in choices
        drawn.append("train" if swamps else _pick(draw(seed, "split", unit.name) * total, choices, fractions))
    return drawn


def _pick(position: float, choices: Sequence[Split], fractions: Mapping[Split, float]) -> Split:
    for split in choices:
        position -= fractions[split]
        if position < 0:
            return split
    return choices[-1]
