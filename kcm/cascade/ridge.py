"""Ridge regression with the predictions that every unit would get had it been left out, all in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.units import Units

_STRENGTHS = np.logspace(-6, 1, 29)  # relative to the largest eigenvalue


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """y = constant + x @ weight; `left_out` [N] are the predictions of fits that never saw the row's unit.

    All left-out predictions share the mean of all targets: see `_left_out_means`.
    """

    weight: NDArray[np.float64]  # [P]
    constant: float
    left_out: NDArray[np.float64]  # [N]


def fit_ridge(inputs_NP: NDArray[np.float64], targets_NK: NDArray[np.float64], units: Units) -> list[RidgeFit]:
    """One fit per column of `targets_NK`, its strength chosen by the squared error of the left-out predictions.

    The constant is not penalised. With H the hat matrix and r the residuals of all rows, the residuals of a left-out
    unit g are (I - H_gg)^-1 r_g. `units` are at least two.
    """
    mean_P = inputs_NP.mean(0)
    left_NR, singular_R, right_RP = _thin_svd(inputs_NP - mean_P)
    strengths = _STRENGTHS * float(singular_R.max(initial=0)) ** 2
    blocks = list(_blocks(units, len(inputs_NP)))
    fits = []
    for target_N in targets_NK.T:
        mean = float(target_N.mean())
        y_N = target_N - mean
        tried = [_left_out(left_NR, singular_R**2 / (singular_R**2 + s), y_N, blocks) for s in strengths]
        best = int(np.argmin([np.square(left_out_N - y_N).sum() for left_out_N in tried]))
        weight_P = (left_NR.T @ y_N * singular_R / (singular_R**2 + strengths[best])) @ right_RP
        left_out_N = mean + tried[best] - _left_out_means(y_N, blocks)
        fits.append(RidgeFit(weight_P, mean - float(mean_P @ weight_P), left_out_N))
    return fits


def _thin_svd(inputs_NP: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Left vectors [N, R], singular values [R] and right vectors [R, P], by the smaller of the two Gram matrices."""
    wide = inputs_NP.shape[0] <= inputs_NP.shape[1]
    values, vectors = np.linalg.eigh(inputs_NP @ inputs_NP.T if wide else inputs_NP.T @ inputs_NP)
    kept = values > max(values[-1], 1e-300) * 1e-12
    singular_R, vectors = np.sqrt(values[kept])[::-1], vectors[:, kept][:, ::-1]
    if wide:
        return vectors, singular_R, (vectors / singular_R).T @ inputs_NP
    return inputs_NP @ vectors / singular_R, singular_R, vectors.T


def _blocks(units: Units, num_rows: int) -> Iterator[NDArray[np.intp]]:
    """Row positions [G, m] of all units of m rows, for every size m."""
    if not units.grouped:
        yield np.arange(num_rows)[:, None]
        return
    order = np.argsort(units.code, kind="stable")
    first = np.cumsum(units.size) - units.size
    for size in np.unique(units.size):
        yield order[first[units.size == size][:, None] + np.arange(size)]


def _left_out(
    left_NR: NDArray[np.float64],
    shrink_R: NDArray[np.float64],
    y_N: NDArray[np.float64],
    blocks: list[NDArray[np.intp]],
) -> NDArray[np.float64]:
    """Predictions of y, whose mean is 0, for every unit from all the others."""
    predicted_N = np.empty_like(y_N)
    residual_N = y_N - left_NR @ (shrink_R * (left_NR.T @ y_N))
    for rows_GM in blocks:
        left_GMR = left_NR[rows_GM]
        hat_GMM = 1 / len(y_N) + (left_GMR * shrink_R) @ left_GMR.swapaxes(1, 2)
        left_residual_GM1 = np.linalg.solve(np.eye(rows_GM.shape[1]) - hat_GMM, residual_N[rows_GM][..., None])
        predicted_N[rows_GM] = y_N[rows_GM] - left_residual_GM1[..., 0]
    return predicted_N


def _left_out_means(y_N: NDArray[np.float64], blocks: list[NDArray[np.intp]]) -> NDArray[np.float64]:
    """Mean of y, whose own mean is 0, over all other units.

    It falls where a row's own y is high. Left in the predictions, it would order rows that nothing else tells apart
    by their labels, upside down.
    """
    mean_N = np.empty_like(y_N)
    for rows_GM in blocks:
        mean_N[rows_GM] = -y_N[rows_GM].sum(1, keepdims=True) / (len(y_N) - rows_GM.shape[1])
    return mean_N
