"""The `regret` path: what the cascade loses when the wins of the small model are not credited."""

from __future__ import annotations

import math

import numpy as np

from kcm.cascade.frontier import lowest_threshold
from kcm.cascade.scored import ScoredOutcomes
from kcm.certify.pvalues import LossTest, fewest_binomial
from kcm.metrics.intervals import Units


class RegretPath:
    """Wins are not credited: a row is lost if it is kept, the small model is wrong and the large one right.

    The loss only grows as the threshold falls, so the path may run over the certify rows' own scores (RCPS, arXiv
    2101.02703): to keep too much, the sample would have to look better than the test allows at the one threshold
    where the true loss reaches epsilon.
    """

    def __init__(self, rows: ScoredOutcomes, epsilon: float, delta: float) -> None:
        units = Units(rows.group, len(rows))
        lost = np.flatnonzero(rows.certified_baseline & ~rows.small_correct)
        lost = lost[np.argsort(-rows.score[lost])]
        self.num_units, self.fewest_units = units.count, fewest_binomial(epsilon, delta)
        self._scores, self._epsilon, self._delta = rows.score, epsilon, delta
        self._lost_scores = rows.score[lost]  # descending
        self._totals = np.append(0.0, np.cumsum(units.weights(lost)))  # unit losses summed over the first k of them
        self._test = LossTest(units)

    def certified(self) -> float:
        """Just above the score of the first lost row that the test does not afford."""
        affordable = self._test.affordable(self._totals, self._epsilon, self._delta)
        if affordable < 0:
            return math.inf
        return lowest_threshold(self._scores, self._lost_scores, affordable)

    def deployable(self, lowest: float, highest: float) -> float | None:
        """Every threshold from the lowest certified one upwards holds."""
        return highest if highest >= lowest else None

    def p_value(self, threshold: float) -> float:
        return self._test.p_value(self._total(threshold), self._epsilon)

    def upper_bound(self, threshold: float) -> float:
        """Clopper-Pearson bound for single rows, Hoeffding-Bentkus for groups."""
        return self._test.upper_bound(self._total(threshold), self._delta)

    def _total(self, threshold: float) -> float:
        return float(self._totals[np.searchsorted(-self._lost_scores, -threshold)])
