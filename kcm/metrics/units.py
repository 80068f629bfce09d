"""Units: the independently drawn groups of rows, and rows without a group."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray


class Units:
    """The units of N rows: groups where there are some, a row without one (None) alone.

    `code` [N] is each row's unit and `size` [U] the rows of each unit, where rows come in groups. The loss of a unit is
    the mean over its rows.
    """

    def __init__(self, group: NDArray[np.object_] | None, num_rows: int) -> None:
        self.grouped = group is not None
        if group is None:
            self.count = num_rows
            return
        self.code = unit_codes(group)
        self.size = np.bincount(self.code)
        self.count = len(self.size)

    def weights(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """What a lost row adds to the sum of unit losses, for each of `rows`: one over its unit's size."""
        return 1 / self.size[self.code[rows]] if self.grouped else np.ones(len(rows))

    def of(self, rows: NDArray[np.intp]) -> Units:
        """The units of some of the rows, as they are there."""
        return Units(self.code[rows].astype(object) if self.grouped else None, len(rows))

    def sample(self, num_rows: int, max_rows: int, seed: int) -> NDArray[np.intp]:
        """Positions of all `num_rows` rows, or those of randomly drawn whole units up to `max_rows`.

        At least two units are drawn, whatever their size, for leave-one-unit-out fits.
        """
        if num_rows <= max_rows:
            return np.arange(num_rows)
        order = np.random.default_rng(seed).permutation(self.count)
        if not self.grouped:
            return np.sort(order[:max_rows])
        chosen = np.cumsum(self.size[order]) <= max_rows
        chosen[:2] = True
        return np.flatnonzero(np.isin(self.code, order[chosen]))


def unit_codes(group: ArrayLike) -> NDArray[np.intp]:
    """Number of every row's unit, [N]; a row whose group is None stands alone."""
    codes, names = pd.factorize(np.asarray(group, dtype=object))  # -1 where there is no group
    alone = np.flatnonzero(codes < 0)
    codes[alone] = len(names) + np.arange(len(alone))
    return np.asarray(codes)
