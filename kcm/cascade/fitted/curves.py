"""Monotone curves over named signals: a gate over a few numbers that a person can read whole, and approve.

    score(x) = constant + sum_f curve_f(x_f),    curve_f is flat beyond the ends of its signal

Every signal has a direction known beforehand, and no curve may go against it; see `kcm.cascade.fitted.monotone` for the
fit. Shapes: N rows, F signals.
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

_ALIKE = 0.9999  # rank correlation of two signals that order rows alike
_ENDS = (0.01, 0.99)  # quantiles of a signal over the fitted rows between which its curve bends


@dataclass(frozen=True)
class Signal:
    """A number that speaks for an answer (`direction` 1) or against it (-1), and what it is, for people."""

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
        directions = [each.direction for each in signals]
        fit = fit_monotone(_scaled(values_NF, low_F, high_F), directions, target_N, strength)
        return cls(tuple(signals), low_F, high_F, fit)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], known: Sequence[Signal]) -> SignalCurves:
        """The curves that `tensors` has saved, over some of the `known` signals."""
        kan = monotone_kan(len(tensors["signal_F"]))
        kan.kan_layers[0].weight.copy_(tensors["curves"])
        return cls(
            tuple(known[position] for position in tensors["signal_F"].tolist()),
            tensors["low_F"].numpy(),
            tensors["high_F"].numpy(),
            MonotoneFit(kan, float(tensors["constant"])),
        )

    def tensors(self, known: Sequence[Signal]) -> dict[str, Tensor]:
        """All that was fitted; signals by their positions among the `known` ones."""
        return {
            "signal_F": torch.tensor([known.index(each) for each in self.signals]),
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
        """The fitted numbers that a person has to check: the coefficients of the curves, and the constant."""
        return self._layer.weight.numel() + 1

    @property
    def _layer(self) -> KANLinear:
        return self.fit.kan.kan_layers[0]

    def score(self, values_NF: NDArray[np.float64]) -> NDArray[np.float64]:
        """The constant and all curves, [N]."""
        return np.asarray(self.constant + self.contributions(values_NF).sum(1))

    def contributions(self, values_NF: NDArray[np.float64]) -> NDArray[np.float64]:
        """What every curve adds to the score, [N, F]; 0 is what it adds to a fitted row on average."""
        layer = self._layer
        inputs_NF = torch.from_numpy(_scaled(values_NF, self.low_F, self.high_F))
        curves_NKF: Tensor = layer.features(inputs_NF).unflatten(-1, (-1, layer.in_features))  # type: ignore[no-untyped-call]
        return (curves_NKF * layer.weight.view(1, -1, layer.in_features)).sum(1).numpy()

    def drawn(self, num_points: int = 41) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Every curve whole, in the units of its signal: points [P] between its ends, and what it adds there [P]."""
        points_PF = np.linspace(self.low_F, self.high_F, num_points)
        return list(zip(points_PF.T, self.contributions(points_PF).T, strict=True))


def best_strength(score_by: Mapping[float, NDArray[np.float64]], target_N: NDArray[np.float64]) -> float:
    """The penalty with the lowest log loss; `score_by` has, by penalty, the scores [N] of rows left out of the fit."""
    return min(score_by, key=lambda strength: log_loss(score_by[strength], target_N))


def distinct(columns: Mapping[str, NDArray[np.float64]]) -> tuple[str, ...]:
    """Signals that vary, without those that order rows as an earlier one does."""

    kept: dict[str, NDArray[np.float64]] = {}
    for name, column in columns.items():
        rank_N = pd.Series(column).rank().to_numpy()
        if np.ptp(column) > 0 and not any(np.corrcoef(rank_N, known_N)[0, 1] > _ALIKE for known_N in kept.values()):
            kept[name] = rank_N
    return tuple(kept)


def _scaled(
    values_NF: NDArray[np.float64], low_F: NDArray[np.float64], high_F: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Signals on [-1, 1], clamped to their ends; 0 for one that does not vary."""
    width_F = high_F - low_F
    scaled_NF = 2 * (values_NF - low_F) / np.where(width_F > 0, width_F, 1) - 1
    return np.where(width_F > 0, scaled_NF.clip(-1, 1), 0.0)
