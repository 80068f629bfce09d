"""The gate `signals` in full: every curve, every label's accuracies, and their contributions to an input's score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import logits
from kcm.cascade.curves import Signal
from kcm.cascade.gate import tempered
from kcm.cascade.signals import SignalsHead


@dataclass(frozen=True)
class GateCurve:
    """One curve in the units of its signal: its contribution to the gate score at `points`."""

    signal: Signal
    points: tuple[float, ...]
    added: tuple[float, ...]


@dataclass(frozen=True)
class LabelRates:
    """Accuracy of the small and the large model on validate rows that the small model labels `label`.

    Both are shrunk by ten rows towards the accuracy over all labels; `added` is their joint part of the gate score.
    """

    label: str
    small_accuracy: float
    large_accuracy: float
    added: float


@dataclass(frozen=True)
class GateReading:
    """The parts of a gate score: the constant, and each curve's contribution at its signal's value.

    `answer` are the accuracies for the small model's answer, `labels` those for all labels, from `label_rates`.
    """

    answer: LabelRates
    labels: tuple[LabelRates, ...]
    constant: float
    curves: tuple[GateCurve, ...]
    values: tuple[float, ...]
    contributions: tuple[float, ...]

    @property
    def score(self) -> float:
        """The gate score."""
        return self.constant + sum(self.contributions)


def gate_curves(bundle: Bundle) -> tuple[GateCurve, ...]:
    """All curves of the bundle's gate; empty if the gate does not consist of curves."""
    head = bundle.gate.head
    if not isinstance(head, SignalsHead):
        return ()
    return tuple(
        GateCurve(signal, tuple(points_P.tolist()), tuple(added_P.tolist()))
        for signal, (points_P, added_P) in zip(head.signals, head.curves.drawn(), strict=True)
    )


def label_rates(bundle: Bundle) -> tuple[LabelRates, ...]:
    """The accuracies by label that the gate reads; labels whose answers escalate most easily come first.

    Empty if the gate reads no accuracies.
    """
    head = bundle.gate.head
    if not isinstance(head, SignalsHead):
        return ()
    rows = zip(bundle.label_names, *head.rates_2C.tolist(), head.rates_added_C.tolist(), strict=True)
    return tuple(sorted((LabelRates(*row) for row in rows), key=lambda row: (row.added, row.label)))


def read_gate(bundle: Bundle, features_D: NDArray[np.float32]) -> GateReading | None:
    """The parts of the score of an input with these features; None if the gate does not consist of curves."""
    gate, head = bundle.gate, bundle.gate.head
    if not isinstance(head, SignalsHead):
        return None
    judge_1C, small_1C = logits(bundle.collaborator, features_D[None])
    values_1F = head.values(tempered(features_D[None], judge_1C, small_1C, gate.temperature))
    rates = label_rates(bundle)
    answer = bundle.label_names[int(small_1C.argmax())]
    return GateReading(
        next(rate for rate in rates if rate.label == answer),
        rates,
        head.curves.constant,
        gate_curves(bundle),
        tuple(values_1F[0].tolist()),
        tuple(head.curves.contributions(values_1F)[0].tolist()),
    )
