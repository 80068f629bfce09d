"""Splits share no item and no group, and do not move when rows are added."""

from typing import Any

import numpy as np
import pytest

from kcm.errors import DataError
from kcm.routing.certify import unit_names, with_splits
from kcm.routing.table import RoutingTable


def table(items: list[str], **columns: Any) -> RoutingTable:
    right = np.ones(len(items), dtype=bool)
    given = {name: np.array(values, dtype=object) for name, values in columns.items()}
    return RoutingTable(
        name=np.array([f"row {n + 1}" for n in range(len(items))], dtype=object),
        item=np.array(items, dtype=object),
        small_correct=right,
        large_correct=right,
        large_error=~right,
        **given,
    )


def test_drawn_splits_have_their_shares_and_keep_copies() -> None:
    """Promise: drawn splits hold about their shares and keep copies together."""
    items = [str(n // 2) for n in range(4000)]
    splits = with_splits(table(items), seed=0)
    assert (splits[::2] == splits[1::2]).all()
    shares = [float((splits == name).mean()) for name in ("validate", "certify", "test")]
    np.testing.assert_allclose(shares, [0.4, 0.4, 0.2], atol=0.04)


def test_rows_added_later_move_none() -> None:
    few, many = [str(n) for n in range(50)], [str(n) for n in range(90)]
    assert with_splits(table(few), 3).tolist() == with_splits(table(many), 3)[:50].tolist()


def test_items_of_a_group_and_groups_of_an_item_stay_together() -> None:
    names = unit_names(table(["a", "b", "b", "c", "d"], group=["1", "1", "2", None, "2"]))
    assert names[0] == names[1] == names[2] == names[4] != names[3]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"split": ["validate", "test", "certify"]}, "row 3 .certify. and row 1 .validate. hold the same item"),
        ({"split": ["validate", "test", "validate"], "group": ["g", "g", None]}, "hold a group"),
    ],
)
def test_given_splits_that_share_something_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        with_splits(table(["x", "y", "x"], **columns), seed=0)
