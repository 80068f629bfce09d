"""Rows travel to actors in blocks of several forward passes, and of few enough rows that all actors end together."""

from __future__ import annotations

import pytest

from pipelines.batch import encoding


@pytest.mark.parametrize(
    ("num_rows", "num_actors", "expected"),
    [(100, 2, 64), (11_200, 2, 350), (1_000_000, 2, 512), (11_200, 64, 64)],
)
def test_blocks_of_rows(num_rows: int, num_actors: int, expected: int) -> None:
    assert encoding._rows_together(num_rows, 64, num_actors) == expected
