"""The routers that are compared on the same folds: each gives scores to rows, larger where the small model may keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcm.routing.head import fit_head
from kcm.routing.inputs import RouterInputs, word_inputs
from kcm.routing.table import RoutingTable

Rows = NDArray[np.intp]
Scores = tuple[NDArray[np.float64], NDArray[np.float64]]
Method = Callable[[Rows, Rows], Scores]
"""From the rows to fit on and the rows held out to scores of both; those of the former are out-of-fold."""


def methods(table: RoutingTable, inputs: RouterInputs, sure_name: str) -> dict[str, Method]:
    """By name, those that the table allows; `sure_name` is what its own score is called.

    `deferral`: less of the gain that the routing head expects of a large call. `small_right`: the head's estimate of
    P(small right), so that 1 minus it is what escalates, as simple routers do. `hashed_words`: the gain, estimated by
    ridge regression on nothing but single hashed words. `oracle` knows who is right.
    """
    small, large = table.small_correct.astype(np.float64), table.large_correct.astype(np.float64)
    found = {"deferral": _fitted(table, inputs, small - large)}
    if table.sure is not None:
        found[sure_name] = _known(table.sure)
    found["small_right"] = _fitted(table, inputs, small)
    if table.text is not None:
        found["hashed_words"] = _fitted(table, word_inputs([str(text) for text in table.text]), small - large)
    return found | {"oracle": _known(small - large)}


def _fitted(table: RoutingTable, inputs: RouterInputs, target_N: NDArray[np.float64]) -> Method:
    def score(fit: Rows, held_out: Rows) -> Scores:
        group = None if table.group is None else table.group[fit]
        head, left_out = fit_head(inputs.select(fit), target_N[fit], group)
        return left_out, head.estimate(inputs.select(held_out))

    return score


def _known(score_N: ArrayLike) -> Method:
    values = np.asarray(score_N, dtype=np.float64)

    def score(fit: Rows, held_out: Rows) -> Scores:
        return values[fit], values[held_out]

    return score
