"""Rows without a label: the pool on which the large model and the judge teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kcm.tasks.rows import BadRow, Row
from kcm.tasks.sampling import cap_rows
from kcm.tasks.scenarios import RowGroup, shared_out
from kcm.tasks.splits import SPLITS, Split, without_overlap
from kcm.tasks.units import content_key

Splits = dict[Split, list[Row]]


def with_unlabelled(
    groups: Sequence[RowGroup], splits: Sequence[Splits], pool: Sequence[Row], limit: int | None, seed: int
) -> tuple[list[Splits], list[BadRow]]:
    """The splits of every task with at most `limit` rows of `pool` after its train rows; and the rows left out.

    Rows are left out whose content has a label, or lies in another split: a classifier's answer to the former would not
    be out of fold.
    """
    others = [replace(row, split=split) for rows_of in splits for split in SPLITS for row in rows_of[split]]
    known = {content_key(row) for row in others if row.split == "train"}
    twice = [BadRow(row.id, "its content is also in a labelled row") for row in pool if content_key(row) in known]
    fresh = [replace(row, split="train") for row in pool if content_key(row) not in known]
    kept, overlapping = without_overlap([*others, *fresh])
    shares = shared_out(kept[len(others) :], groups, seed, "unlabelled")
    if limit is not None:
        shares = [cap_rows(rows, limit, seed, task=group.name) for group, rows in zip(groups, shares, strict=True)]
    joined = [{**rows_of, "train": [*rows_of["train"], *rows]} for rows_of, rows in zip(splits, shares, strict=True)]
    return joined, [*twice, *overlapping]
