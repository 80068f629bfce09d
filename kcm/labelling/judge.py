"""The judge of a table: P(the small model's answer is right) from a dozen readable signals.

A one-layer KAN whose curves are monotone in known directions (`kcm.cascade.curves`), fitted to rows that were bought,
on signals that leave each row's own label out. Shapes: B rows that were bought, U units, F signals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from kcm.cascade.curves import Signal, SignalCurves, distinct

SIGNALS = (
    Signal("probability", 1, "log-odds of the likeliest label"),
    Signal("margin", 1, "distance between the two highest scores"),
    Signal("entropy", 1, "negative entropy of the probabilities"),
    Signal("leverage", -1, "how unlike the bought rows the input is"),
    Signal("neighbours", 1, "share of the nearest bought rows with this label, weighted by likeness"),
    Signal("nearest row", 1, "likeness of the nearest bought row with this label"),
    Signal("rival row", -1, "likeness of the nearest bought row with another label"),
    Signal("label count", 1, "logarithm of the bought rows with this label"),
    Signal("label accuracy", 1, "how often this label was right on other bought rows"),
    Signal("cheaper model", 1, "whether the cheaper model gives the same label"),
)
STRENGTH = 10.0  # of the penalty on curves
_BY_NAME = {signal.name: signal for signal in SIGNALS}

Columns = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Judge:
    """log-odds(right) = constant + sum of curves over the signals that vary."""

    curves: SignalCurves

    @classmethod
    def fitted(cls, signals: Columns, right_B: NDArray[np.bool_]) -> Judge:
        """Fit P(right) to rows that were bought, by their signals [B] of known names."""
        names = distinct(signals)
        values_BF = np.stack([signals[name] for name in names], 1)
        chosen = [_BY_NAME[name] for name in names]
        return cls(SignalCurves.fitted(chosen, values_BF, right_B.astype(np.float64), STRENGTH))

    def wrong(self, signals: Columns) -> NDArray[np.float64]:
        """P(wrong) of units with these signals, [U]."""
        values_UF = np.stack([signals[signal.name] for signal in self.curves.signals], 1)
        return np.asarray(expit(-self.curves.score(values_UF)))
