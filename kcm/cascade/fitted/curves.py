"""Monotone curves over named signals: a gate that a person can read completely, and approve.

    score(x) = constant + sum_f curve_f(x_f),    curve_f is flat beyond the ends of its signal

Every signal has a known direction, and no curve may go against it; `kcm.cascade.fitted.monotone` fits the curves.
Shapes: N rows, F signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from kcm.cascade.fitted.monotone import MonotoneFit, fit_monotone, log_loss, monotone_kan
from kcm.kan import KANLinear

_ALIKE = 0.9999  # rank correlation above which two signals order rows alike
_ENDS = (0.01, 0.99)  # quantiles of a signal over the fitted rows; its curve bends only between them


@dataclass(frozen=True)
class Signal:
    """A number that speaks for an answer (`direction` 1) or against it (-1), with a description for people."""

    name: str
    direction: int
    meaning: str


@dataclass(frozen=True, eq=False)
class SignalCurves:
    """Fitted curves; `low_F` and `high_F` are the ends of every signal, beyond which a curve is flat."""

    signals: tuple[Signal, ...]
    low_F: NDArray[np.float64]
    high_F: NDArray[np.float64]
    fit: MonotoneFit

    @classmethod
    def fitted(
        cls, signals: Sequence[Signal], values_NF: NDArray[np.float64], target_N: NDArray[np.float64], strength: float
    ) -> SignalCurves:
        """SignalCurves whose sum is the log-odds of `target_N`."""
        low_F, high_F = np.quantile(values_NF, _ENDS, axis=0)
        directions = [signal.direction for signal in signals]
        fit = fit_monotone(_scale(values_NF, low_F, high_F), directions, target_N, strength)
        return cls(tuple(signals), low_F, high_F, fit)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], known: Sequence[Signal]) -> SignalCurves:
        """The curves in `tensors`, over some of the `known` signals."""
        kan = monotone_kan(len(tensors["signal_F"]))
        kan.kan_layers[0].weight.copy_(tensors["curves"])
        return cls(
            tuple(known[position] for position in tensors["signal_F"].tolist()),
            tensors["low_F"].numpy(),
            tensors["high_F"].numpy(),
            MonotoneFit(kan, float(tensors["constant"])),
        )

    def tensors(self, known: Sequence[Signal]) -> dict[str, Tensor]:
        """All fitted values; signals by their positions in `known`."""
        return {
            "signal_F": torch.tensor([known.index(signal) for signal in self.signals]),
            "low_F": torch.from_numpy(self.low_F),
            "high_F": torch.from_numpy(self.high_F),
            "curves": self._layer.weight.detach(),
            "constant": torch.tensor(self.constant, dtype=torch.float64),
        }

    @property
    def constant(self) -> float:
        """The score of an average row."""
        return self.fit.constant

    @property
    def num_parameters(self) -> int:
        """The number of fitted values that a person has to check: the curves' coefficients and the constant."""
        return self._layer.weight.numel() + 1

    @property
    def _layer(self) -> KANLinear:
        return self.fit.kan.kan_layers[0]

    def score(self, values_NF: NDArray[np.float64]) -> NDArray[np.float64]:
        """The constant plus all curves, [N]."""
        return np.asarray(self.constant + self.contributions(values_NF).sum(1))

    def contributions(self, values_NF: NDArray[np.float64]) -> NDArray[np.float64]:
        """What every curve adds to the score, [N, F]; the mean over the fitted rows is 0."""
        layer = self._layer
        inputs_NF = torch.from_numpy(_scale(values_NF, self.low_F, self.high_F))
        curves_NKF: Tensor = layer.features(inputs_NF).unflatten(-1, (-1, layer.in_features))  # type: ignore[no-untyped-call]
        return (curves_NKF * layer.weight.view(1, -1, layer.in_features)).sum(1).numpy()

    def drawn(self, num_points: int = 41) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Every curve in the units of its signal: points [P] between its ends, and its value at each point [P]."""
        points_PF = np.linspace(self.low_F, self.high_F, num_points)
        return list(zip(points_PF.T, self.contributions(points_PF).T, strict=True))


def best_strength(score_by: Mapping[float, NDArray[np.float64]], target_N: NDArray[np.float64]) -> float:
    """The penalty with the lowest log loss; `score_by` maps a penalty to the left-out scores [N]."""
    return min(score_by, key=lambda strength: log_loss(score_by[strength], target_N))


def distinct(columns: Mapping[str, NDArray[np.float64]]) -> tuple[str, ...]:
    """Signals that vary and do not order rows as an earlier signal does."""
    ranks_by_name: dict[str, NDArray[np.float64]] = {}
    for name, column in columns.items():
        rank_N = pd.Series(column).rank().to_numpy()
        if np.ptp(column) > 0 and not any(
            np.corrcoef(rank_N, known_N)[0, 1] > _ALIKE for known_N in ranks_by_name.values()
        ):
            ranks_by_name[name] = rank_N
    return tuple(ranks_by_name)


def _scale(
    values_NF: NDArray[np.float64], low_F: NDArray[np.float64], high_F: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Signals on [-1, 1], clamped to their ends; 0 for a signal that does not vary."""
    width_F = high_F - low_F
    scaled_NF = 2 * (values_NF - low_F) / np.where(width_F > 0, width_F, 1) - 1
    return np.where(width_F > 0, scaled_NF.clip(-1, 1), 0.0)
