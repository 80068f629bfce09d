"""The validate, certify and test rows of a routing table: as the table says, or drawn by item and group."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kcm.errors import DataError
from kcm.routing.table import RoutingTable
from kcm.tasks.hashing import draw
from kcm.tasks.units import connected_units

FRACTIONS = {"validate": 0.4, "certify": 0.4, "test": 0.2}


def with_splits(table: RoutingTable, seed: int) -> NDArray[np.object_]:
    """The split of every row, [N].

    A drawn split depends on the seed and the row's own unit alone, so that rows added later move none. Raises
    DataError when a given split shares an item or a group with another one.
    """
    if table.split is None:
        names = pd.Series(unit_names(table))
        drawn = {name: _split_at(draw(seed, "route", name)) for name in names.unique()}
        return np.asarray(names.map(drawn), dtype=object)
    _refuse_shared(table, table.split, table.item, "the same item", "Leave copies out of one of them")
    if table.group is not None:
        _refuse_shared(table, table.split, table.group, "a group", "Keep the rows of a group together")
    return table.split


def unit_names(table: RoutingTable) -> list[str]:
    """What has to stay together, by name, for every row: items, and the groups that share items."""
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
    table: RoutingTable, split: NDArray[np.object_], key: NDArray[np.object_], what: str, hint: str
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
        f" {first['name'][row['key']]} ({first['split'][row['key']]}) hold {what}",
        where="split",
        hint=hint,
    )
