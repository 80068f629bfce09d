"""The validate, certify and test rows of a routing table: as given in the table, or drawn by item and group."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kcm.errors import DataError
from kcm.routing.table import RoutingTable
from kcm.tasks.hashing import draw
from kcm.tasks.units import connected_units

FRACTIONS = {"validate": 0.4, "certify": 0.4, "test": 0.2}
CHOOSING = 0.2  # share of the rows that choose, if nothing else sets rows aside


def certifying_splits(table: RoutingTable, seed: int, *, credit_wins: bool) -> NDArray[np.object_]:
    """The split of every row, [N], if nothing has to be chosen: the table's own, or all rows certify.

    With `credit_wins`, a fifth of the rows choose if the small model is clearly better on them. A test that credits
    wins then keeps more of the other rows than an exact binomial test keeps of all rows. The choice costs no delta. It
    reads D_i = small right - large right of this fifth only, and rises with every D_i; so does the chance of a false
    certificate on all rows by `regret`. By Harris' inequality, the chance of both this certificate and "all rows
    certify" is at most delta P(all rows certify). On the other rows it is at most delta P(a fifth chooses). The D_i of
    rows in groups are not independent, so groups never choose.
    """
    if table.split is not None:
        return with_splits(table, seed)
    splits = np.full(len(table), "certify", dtype=object)
    if credit_wins and table.group is None:
        chooses = np.array([draw(seed, "choose", name) < CHOOSING for name in unit_names(table)])
        large = table.large_correct | table.large_error
        if small_is_better(table.small_correct[chooses], large[chooses]):
            splits[chooses] = "validate"
    return splits


def small_is_better(small_correct: NDArray[np.bool_], large_correct: NDArray[np.bool_]) -> bool:
    """Whether the small model is right clearly more often: W wins minus L losses exceed two standard errors."""
    num_wins = int((small_correct & ~large_correct).sum())
    num_losses = int((large_correct & ~small_correct).sum())
    return num_wins > num_losses and num_wins - num_losses >= 2 * math.sqrt(num_wins + num_losses)


def with_splits(table: RoutingTable, seed: int) -> NDArray[np.object_]:
    """The split of every row, [N].

    A drawn split depends only on the seed and the row's own unit, so rows added later change no split. Raises DataError
    if a given split shares an item or a group with another split.
    """
    if table.split is None:
        names = pd.Series(unit_names(table))
        split_by_name = {name: _split_at(draw(seed, "route", name)) for name in names.unique()}
        return np.asarray(names.map(split_by_name), dtype=object)
    _refuse_shared(table, table.split, table.item, "the same item", "Leave copies out of one of them")
    if table.group is not None:
        _refuse_shared(table, table.split, table.group, "a group", "Keep the rows of a group together")
    return table.split


def unit_names(table: RoutingTable) -> list[str]:
    """The name of every row's unit, which must stay together: items, and the groups that share items."""
    if table.group is None:
        return [str(item) for item in table.item]
    return connected_units(
        [str(item) for item in table.item], ["" if pd.isna(group) else str(group) for group in table.group]
    )


def _split_at(share: float) -> str:
    for split, fraction in FRACTIONS.items():
        if share < fraction:
            return split
        share -= fraction
    return "test"


def _refuse_shared(
    table: RoutingTable, split: NDArray[np.object_], key: NDArray[np.object_], subject: str, hint: str
) -> None:
    frame = pd.DataFrame({"key": key, "split": split, "name": table.name}).dropna(subset=["key"])
    first = frame.drop_duplicates("key").set_index("key")
    owner = frame["key"].map(first["split"])
    shared = frame[owner != frame["split"]]
    if shared.empty:
        return
    row = shared.iloc[0]
    raise DataError(
        f"{len(shared)} rows repeat what another split holds: {row['name']} ({row['split']}) and"
        f" {first['name'][row['key']]} ({first['split'][row['key']]}) hold {subject}",
        where="split",
        hint=hint,
    )
