"""The gate `signals` of a router: monotone curves over a few numbers that a table tells of a row, for a person to read.

The first number is what the routing head expects of all the words and features; the others say what a person would look
at. The score is the log-odds that a large call gains nothing, as that of the gate `signals` of a cascade
(`kcm.cascade.fitted.signals`). Shapes: N rows, F signals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.fitted.curves import Signal, SignalCurves, best_strength, distinct
from kcm.cascade.fitted.monotone import STRENGTHS, unit_folds
from kcm.metrics.intervals import Units
from kcm.routing.routers.arithmetic import arithmetic_checks
from kcm.routing.routers.inputs import NUM_NUMBERS, NUM_WORDS, text_statistics
from kcm.routing.table import RoutingTable

ROUTE_SIGNALS = (
    Signal("expected", 1, "P(small right) - P(large right), as the routing head estimates it"),
    Signal("confidence", 1, "the table's own confidence or score"),
    Signal("length", -1, "words of the text, in logarithms"),
    Signal("figures", -1, "numbers in the text, in logarithms"),
    Signal("response length", -1, "words of the small model's response, in logarithms"),
    Signal("sums that fail", -1, "sums in the response that do not come out, in logarithms"),
    Signal("figures left out", -1, "numbers of the text that the response never uses, in logarithms"),
)


def route_signals(table: RoutingTable, expected_N: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The signals that a table tells, by name, [N] each; `expected_N` is the routing head's estimate."""
    found = {"expected": expected_N}
    if table.confidence is not None:
        found["confidence"] = table.confidence
    if table.text is not None:
        texts = [str(text) for text in table.text]
        statistics_NS = text_statistics(texts)
        found |= {"length": statistics_NS[:, NUM_WORDS], "figures": statistics_NS[:, NUM_NUMBERS]}
    if table.small_response is not None:
        responses = [str(response) for response in table.small_response]
        found["response length"] = text_statistics(responses)[:, NUM_WORDS]
        asked = texts if table.text is not None else [""] * len(responses)
        checks_N3 = arithmetic_checks(asked, responses)
        found |= {"sums that fail": checks_N3[:, 1], "figures left out": checks_N3[:, 2]}
    return found


def score_route(curves: SignalCurves, table: RoutingTable, expected_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds that a large call gains nothing, [N]."""
    known = route_signals(table, expected_N)
    return curves.score(np.stack([known[each.name] for each in curves.signals], 1))


def fit_route(
    table: RoutingTable, expected_N: NDArray[np.float64], seed: int
) -> tuple[SignalCurves, NDArray[np.float64]]:
    """SignalCurves, and the scores [N] that rows get from curves which never saw their fold.

    `expected_N` are the routing head's out-of-fold estimates: curves that saw what the head remembers would trust it.
    """
    known = route_signals(table, expected_N)
    # A head that can say nothing leaves one signal that does not vary, whose curve is flat.
    names = distinct(known) or ("expected",)
    signals = [each for each in ROUTE_SIGNALS if each.name in names]
    values_NF = np.stack([known[each.name] for each in signals], 1)
    target_N = (table.small_correct | ~table.large_correct).astype(np.float64)
    fold_N = unit_folds(Units(table.group, len(table)), seed)
    fitted = {strength: SignalCurves.fitted(signals, values_NF, target_N, strength) for strength in STRENGTHS}
    scores = {strength: np.full(len(table), curves.constant) for strength, curves in fitted.items()}
    for fold in np.unique(fold_N):
        out_N = fold_N == fold
        for strength, score_N in scores.items():
            others = SignalCurves.fitted(signals, values_NF[~out_N], target_N[~out_N], strength)
            # The constant is that of the whole: one of their own would order folds by how their other rows fared.
            score_N[out_N] += others.contributions(values_NF[out_N]).sum(1)
    best = best_strength(scores, target_N)
    return fitted[best], scores[best]
