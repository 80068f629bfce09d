"""The gate `signals` read whole: every curve, and what each has added to the score of one input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import logits
from kcm.cascade.fitted.curves import Signal
from kcm.cascade.fitted.signals import SignalsHead
from kcm.cascade.gate import tempered


@dataclass(frozen=True)
class GateCurve:
    """One curve whole, in the units of its signal: what it adds to the gate score at `points`."""

    signal: Signal
    points: tuple[float, ...]
    added: tuple[float, ...]


@dataclass(frozen=True)
class GateReading:
    """What a gate score is made of: the constant, and at each curve's signal `values` what it adds, `contributions`."""

    constant: float
    curves: tuple[GateCurve, ...]
    values: tuple[float, ...]
    contributions: tuple[float, ...]

    @property
    def score(self) -> float:
        """The gate score."""
        return self.constant + sum(self.contributions)


def gate_curves(bundle: Bundle) -> tuple[GateCurve, ...]:
    """All curves of the bundle's gate; none of a gate that is not made of curves."""
    head = bundle.gate.head
    if not isinstance(head, SignalsHead):
        return ()
    return tuple(
        GateCurve(signal, tuple(points_P.tolist()), tuple(added_P.tolist()))
        for signal, (points_P, added_P) in zip(head.signals, head.curves.drawn(), strict=True)
    )


def read_gate(bundle: Bundle, features_D: NDArray[np.float32]) -> GateReading | None:
    """What the score of an input with these features is made of; None for a gate that is not made of curves."""
    gate, head = bundle.gate, bundle.gate.head
    if not isinstance(head, SignalsHead):
        return None
    judge_1C, small_1C = logits(bundle.collaborator, features_D[None])
    values_1F = head.values(tempered(features_D[None], judge_1C, small_1C, gate.temperature))
    return GateReading(
        head.curves.constant,
        gate_curves(bundle),
        tuple(values_1F[0].tolist()),
        tuple(head.curves.contributions(values_1F)[0].tolist()),
    )
