"""Rows gathered in the units that were drawn independently, and the exact test that fits their losses."""

from __future__ import annotations

import bisect
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kcm.certify import pvalues

LossTest = Callable[[float, int, float], float]


class Units:
    """The units of N rows: groups where there are some, a row without one alone.

    `code` [N] is each row's unit and `size` [U] the rows of each unit, where rows come in groups. The loss of a unit is
    the mean over its rows. Losses of single rows are 0 or 1 and tested by the exact binomial, others by
    Hoeffding-Bentkus.
    """

    def __init__(self, group: NDArray[np.object_] | None, num_rows: int) -> None:
        self.grouped = group is not None
        if group is None:
            self.count = num_rows
            return
        code, names = pd.factorize(group)  # -1 where there is no group
        alone = np.flatnonzero(code < 0)
        code[alone] = len(names) + np.arange(len(alone))
        self.code, self.count = code, len(names) + len(alone)
        self.size = np.bincount(code, minlength=self.count)

    def weights(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """What a lost row adds to the sum of unit losses, for each of `rows`: one over its unit's size."""
        return 1 / self.size[self.code[rows]] if self.grouped else np.ones(len(rows))

    @property
    def p_value(self) -> LossTest:
        """p-value of H0: mean unit loss >= level, from (summed unit losses, number of units, level)."""
        return pvalues.hoeffding_bentkus_p_value if self.grouped else pvalues.binomial_p_value

    @property
    def upper_bound(self) -> LossTest:
        """Upper confidence bound on the mean unit loss, from (summed unit losses, number of units, delta)."""
        return pvalues.hoeffding_bentkus_upper_bound if self.grouped else pvalues.binomial_upper_bound

    def affordable(self, totals: NDArray[np.float64], level: float, delta: float) -> int:
        """How many losses the test passes with, in order, summed in `totals` (from 0 on); -1: not even none."""
        return bisect.bisect_right(totals, delta, key=lambda total: self.p_value(float(total), self.count, level)) - 1
