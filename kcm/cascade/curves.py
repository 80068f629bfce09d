"""Monotone curves over named signals: a gate that a person can read completely, and approve.

    score(x) = constant + sum_f curve_f(x_f),    curve_f is flat beyond the ends of its signal

Every signal has a known direction, and no curve may go against it. A curve sum_k c_k B_k rises where its coefficients
do, so with steps s_k = c_k+1 - c_k of one sign

    log-odds(x) = constant + sum_f sum_k s_fk T_k(x_f),    T_k = B_k+1 + B_k+2 + ...

has monotone curves, and its fit is a convex problem with bounds (Ramsay, Statistical Science 3, 1988). The penalty is
strength * sum_f [ sum_k (s_fk+1 - s_fk)^2 + RIDGE sum_k s_fk^2 ]: curves are straight and flat unless the rows object.
Shapes: N rows, F signals, K splines of a signal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

from kcm.kan import KAN, KANLinear
from kcm.kan.basis import spline_basis
from kcm.metrics.intervals import Units

STRENGTHS = (0.1, 1.0, 10.0)
NUM_FOLDS = 5
_RIDGE = 0.1
_LIMIT = 30.0  # log-odds of a target that every row has, or no row
_GRID_SIZE, _SPLINE_ORDER = 5, 2


def monotone_kan(num_inputs: int) -> KAN:
    """The KAN [F, 1] of the fit, with inputs in [-1, 1] and 7 coefficients per curve."""
    kan = KAN([num_inputs, 1], _GRID_SIZE, _SPLINE_ORDER, (-1.0, 1.0), base_activation="none", zero_start=True)
    return kan.double().requires_grad_(False)


def fit_monotone(
    inputs_NF: NDArray[np.float64], direction_F: Sequence[int], target_N: NDArray[np.float64], strength: float
) -> tuple[KAN, float]:
    """Fit log-odds = constant + KAN(x) of the target, for inputs in [-1, 1]; returns the KAN and the constant.

    `direction_F` is 1 for a curve that may only rise, -1 fall, 0 either. Every curve is 0 on average over the rows.
    """
    num_inputs = inputs_NF.shape[1]
    kan = monotone_kan(num_inputs)
    splines_NKF = _splines(kan, inputs_NF)
    # T of the steps for all inputs side by side, minus its mean, so that the constant is the score of an average row.
    steps_NFS = np.flip(np.flip(splines_NKF[:, 1:], 1).cumsum(1), 1).swapaxes(1, 2)
    mean_FS = steps_NFS.mean(0)
    design_NP = (steps_NFS - mean_FS).reshape(len(inputs_NF), -1)
    penalty_PP = strength * np.kron(np.eye(num_inputs), _roughness(mean_FS.shape[1]))
    bounds = [
        (0.0 if direction > 0 else None, 0.0 if direction < 0 else None)
        for direction in direction_F
        for _ in range(mean_FS.shape[1])
    ]

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        constant, steps_P = parameters[0], parameters[1:]
        log_odds_N = constant + design_NP @ steps_P
        excess_N = expit(log_odds_N) - target_N
        pull_P = penalty_PP @ steps_P
        value = float((np.logaddexp(0, log_odds_N) - target_N * log_odds_N).sum() + steps_P @ pull_P / 2)
        return value, np.concatenate([[excess_N.sum()], design_NP.T @ excess_N + pull_P])

    solution = minimize(
        loss, np.zeros(1 + design_NP.shape[1]), jac=True, method="L-BFGS-B", bounds=[(-_LIMIT, _LIMIT), *bounds]
    ).x
    steps_FS = solution[1:].reshape(mean_FS.shape)
    # From the first spline's coefficient, add the steps, then subtract the mean.
    curve_FK = np.pad(steps_FS.cumsum(1), ((0, 0), (1, 0))) - (steps_FS * mean_FS).sum(1, keepdims=True)
    layer = kan.layers[0]
    assert isinstance(layer, KANLinear)
    layer.weight.copy_(torch.from_numpy(curve_FK.T.reshape(1, -1)))
    return kan, float(solution[0])


def unit_folds(units: Units, seed: int) -> NDArray[np.int64]:
    """The fold of every row, [N]: whole units are dealt out in a seeded random order."""
    fold_U = np.empty(units.count, dtype=np.int64)
    fold_U[np.random.default_rng(seed).permutation(units.count)] = np.arange(units.count) % NUM_FOLDS
    return fold_U[units.code] if units.grouped else fold_U


def log_loss(log_odds_N: NDArray[np.float64], target_N: NDArray[np.float64]) -> float:
    """Mean of -log P(target), in nats."""
    return float((np.logaddexp(0, log_odds_N) - target_N * log_odds_N).mean())


def _splines(kan: KAN, inputs_NF: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of the splines, [N, K, F]."""
    return spline_basis(torch.from_numpy(inputs_NF), kan.kan_layers[0].grid).numpy()


def _roughness(num_steps: int) -> NDArray[np.float64]:
    """The quadratic form of the penalty on the steps of a curve."""
    change = np.diff(np.eye(num_steps), axis=0)
    return np.asarray(2 * (change.T @ change + _RIDGE * np.eye(num_steps)))


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
    """Fitted curves; `low_F` and `high_F` are the ends of every signal, beyond which a curve is flat.

    `constant` is the score of an average row.
    """

    signals: tuple[Signal, ...]
    low_F: NDArray[np.float64]
    high_F: NDArray[np.float64]
    kan: KAN
    constant: float

    @classmethod
    def fitted(
        cls, signals: Sequence[Signal], values_NF: NDArray[np.float64], target_N: NDArray[np.float64], strength: float
    ) -> SignalCurves:
        """Curves whose sum is the log-odds of `target_N`."""
        low_F, high_F = np.quantile(values_NF, _ENDS, axis=0)
        directions = [signal.direction for signal in signals]
        fit = fit_monotone(_scale(values_NF, low_F, high_F), directions, target_N, strength)
        return cls(tuple(signals), low_F, high_F, *fit)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], known: Sequence[Signal]) -> SignalCurves:
        """The curves in `tensors`, over some of the `known` signals. Raises RuntimeError if they do not fit."""
        positions = tensors["signal_F"].long().flatten().tolist()
        low_F, high_F = tensors["low_F"].numpy(), tensors["high_F"].numpy()
        if not {*positions} <= {*range(len(known))} or not low_F.shape == high_F.shape == (len(positions),):
            raise RuntimeError(f"curves over other signals than the {len(known)} known ones")
        kan = monotone_kan(len(positions))
        kan.kan_layers[0].weight.copy_(tensors["curves"])
        return cls(tuple(known[at] for at in positions), low_F, high_F, kan, float(tensors["constant"]))

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
    def _layer(self) -> KANLinear:
        return self.kan.kan_layers[0]

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
