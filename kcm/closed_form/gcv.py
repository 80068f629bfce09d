"""Ridge regression from streamed sums, its strength chosen by generalised cross-validation from the same sums.

With G, Q, s and n of `RidgeSums`, and A = G + lambda I,

    W = A^-1 Q        RSS = s - tr(W^T Q) - lambda |W|^2        df = P - lambda tr(A^-1)
    GCV(lambda) = n RSS / (n - df)^2                            (Golub, Heath and Wahba 1979, equation 1.4)

One Cholesky factor A = L L^T gives all of it, tr(A^-1) = |L^-1|^2 included: 2/3 P^3 operations for a lambda, where the
eigenvalues of G would cost some ten times as much. Fewer rows than inputs leave G = L L^T and Q = L U with L [P, R] of
rank R < P, from one pivoted factor. Then W = L (L^T L + lambda I)^-1 U, at 2/3 R^3 operations for a lambda. Shapes: P
inputs, K targets, M models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import blas, lapack
from torch import Tensor

from kcm.closed_form.sums import RidgeSums

MIN_STRENGTH = 1e-6  # inputs that almost repeat others leave G close to singular
_MOST_USED = 0.9  # of the degrees of freedom of an exact fit
_PER_DECADE = 2
_LOWEST, _HIGHEST = -6 * _PER_DECADE, 2 * _PER_DECADE
_USUAL = 0.1  # of tr(G) / n, what the best lambda is


_Solution = tuple[Tensor, float]  # weights [P, K], and the degrees of freedom that they use


@dataclass(frozen=True, eq=False)
class GcvRidge:
    """The regression of one model at one strength, which is lambda / (tr(G) / P)."""

    weight_KP: Tensor  # float64
    strength: float
    gcv: float  # infinite without degrees of freedom
    degrees_of_freedom: float


def ridge_by_gcv(sums: RidgeSums, strength: float | None = None, *, exchangeable: bool = False) -> list[GcvRidge]:
    """Every model's regression, at `strength` or at the strength with the least GCV.

    `exchangeable` inputs, such as random units, are samples of one kernel: with at least as many rows as inputs, half
    of them choose the strength for all. That takes an eighth of the operations for a candidate.

    The candidates are half decades from 1e-6 to 100, so that the last digits of the sums cannot move the choice. The
    search goes downhill from a tenth of tr(G) / n, near which the best one lies for features of frozen encoders. Fewer
    rows than inputs can be fitted exactly: where some are repeated, GCV then falls to zero with the strength, and says
    nothing. So the search begins on the far side of that valley, and no fit may use more than nine in ten of the
    degrees of freedom that an exact one does.
    """
    solve = _low_rank(sums) if float(sums.count) < len(sums.gram_PP) else partial(_full_rank, sums)
    if strength is not None:
        return _at(sums, strength, solve)
    if exchangeable and float(sums.count) >= len(sums.gram_PP):
        half = sums.every_second()
        ratio = len(sums.gram_PP) / len(half.gram_PP)  # the penalty grows with the kernel's sum over inputs
        strengths = [ratio * fit.strength for fit in ridge_by_gcv(half)]
        by_strength = {strength: _at(sums, strength, solve) for strength in strengths}
        return [by_strength[strength][model] for model, strength in enumerate(strengths)]

    @cache
    def fits(step: int) -> list[GcvRidge]:
        return _at(sums, 10 ** (step / _PER_DECADE), solve)

    exact = len(sums.gram_PP) >= sums.count
    start = round(_PER_DECADE * math.log10(_USUAL * len(sums.gram_PP) / float(sums.count)))
    start = min(max(start, _LOWEST), _HIGHEST)
    most = _MOST_USED * fits(_LOWEST)[0].degrees_of_freedom if exact else float("inf")

    def value(step: int, model: int) -> float:
        fit = fits(step)[model]
        return fit.gcv if fit.degrees_of_freedom <= most else float("inf")

    def best(model: int) -> GcvRidge:
        return fits(_lowest(start, lambda step: value(step, model)))[model]

    return [best(model) for model in range(len(sums.squares_M))]


def _lowest(step: int, value: Callable[[int], float]) -> int:
    while True:
        around = [s for s in (step, step - 1, step + 1) if _LOWEST <= s <= _HIGHEST]
        best = min(around, key=value)  # the step itself on a tie
        if best == step:
            return step
        step = best


def factor_of(sums: RidgeSums, strength: float) -> NDArray[np.float64]:
    """L of G + lambda I = L L^T, lower triangular, in Fortran's order.

    Raises LinAlgError if the matrix is not positive definite.
    """
    ridge = strength * sums.mean_eigenvalue
    # The upper triangle in C's order is the lower one in Fortran's; every step overwrites the one copy.
    matrix = sums.gram_PP.numpy().copy().T
    np.fill_diagonal(matrix, matrix.diagonal() + ridge)
    return _cholesky(matrix, ridge)


def _cholesky(matrix: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """The lower factor of a matrix in Fortran's order, which it overwrites; zero above the diagonal."""
    factor, failed = lapack.dpotrf(matrix, lower=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError(f"G + {ridge:g} I is not positive definite")
    return np.asarray(factor)


def _full_rank(sums: RidgeSums, strength: float) -> _Solution:
    """The solution from a factor of G + lambda I itself."""
    factor = factor_of(sums, strength)
    solution_PK, _ = lapack.dpotrs(factor, sums.cross_PK.numpy(), lower=1)
    ridge = strength * sums.mean_eigenvalue
    return torch.from_numpy(solution_PK), len(factor) - ridge * _inverse_trace(factor)


def _low_rank(sums: RidgeSums) -> Callable[[float], _Solution]:
    """The solution at any strength, once G is reduced to its rank."""
    pivoted, pivots, rank, _ = lapack.dpstrf(sums.gram_PP.numpy().T, lower=1)
    order = pivots - 1  # Fortran counts from 1
    lower_PR = np.asfortranarray(np.tril(pivoted[:, :rank]))  # of the inputs in the order of the pivots
    target_RK = lapack.dtrtrs(lower_PR[:rank], sums.cross_PK.numpy()[order[:rank]], lower=1)[0]
    gram_RR = blas.dsyrk(1.0, lower_PR, trans=1, lower=1)

    def solve(strength: float) -> _Solution:
        ridge, matrix = strength * sums.mean_eigenvalue, gram_RR.copy(order="F")
        np.fill_diagonal(matrix, matrix.diagonal() + ridge)
        factor = _cholesky(matrix, ridge)
        weight_PK = np.empty_like(sums.cross_PK.numpy())
        weight_PK[order] = lower_PR @ lapack.dpotrs(factor, target_RK, lower=1)[0]
        return torch.from_numpy(weight_PK), rank - ridge * _inverse_trace(factor)

    return solve


def _inverse_trace(factor: NDArray[np.float64]) -> float:
    """The trace of (L L^T)^-1; overwrites the factor."""
    inverse, _ = lapack.dtrtri(factor, lower=1, overwrite_c=1)
    entries = inverse.ravel(order="K")
    return float(entries @ entries)


def _at(sums: RidgeSums, strength: float, solve: Callable[[float], _Solution]) -> list[GcvRidge]:
    count, ridge = float(sums.count), strength * sums.mean_eigenvalue
    weight_PK, used = solve(strength)
    left = count - used
    fits = []
    num_models = len(sums.squares_M)
    parts = zip(sums.squares_M, weight_PK.chunk(num_models, 1), sums.cross_PK.chunk(num_models, 1), strict=True)
    for square, weight, cross in parts:
        residual = float(square - (weight * cross).sum() - ridge * weight.square().sum())
        gcv = count * max(residual, 0.0) / left**2 if left > 1e-9 * count else float("inf")
        fits.append(GcvRidge(weight.T.contiguous(), strength, gcv, used))
    return fits
