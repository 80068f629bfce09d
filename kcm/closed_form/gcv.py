"""Ridge regression from streamed sums, its strength chosen by generalised cross-validation from the same sums.

With G, Q, s and n of `RidgeSums`, and A = G + lambda I,

    W = A^-1 Q        RSS = s - tr(W^T Q) - lambda |W|^2        df = P - lambda tr(A^-1)
    GCV(lambda) = n RSS / (n - df)^2                            (Golub, Heath and Wahba 1979, equation 1.4)

One Cholesky factor A = L L^T gives all of it, tr(A^-1) = |L^-1|^2 included: 2/3 P^3 operations for a lambda, where the
eigenvalues of G would cost some ten times as much. Fewer rows than inputs leave G = L L^T and Q = L U with L [P, R] of
rank R < P, from one pivoted factor. Then W = L (L^T L + lambda I)^-1 U, at 2/3 R^3 operations for a lambda. Shapes: P
inputs, K targets, M models, N rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from scipy.linalg import blas, lapack
from torch import Tensor
from torch.nn import functional as F

from kcm.errors import DataError


class RidgeSums:
    """Row count n, G = sum phi phi^T, Q = sum phi y^T, t = sum y, and s = sum |y|^2 of every model, in float64.

    Their size depends on P and K alone: 8 (P^2 + P K) bytes, however many rows and tasks they have seen.
    """

    def __init__(self, num_inputs: int, num_targets: int, num_models: int, device: torch.device | str = "cpu") -> None:
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        self.count = zeros(())
        self.gram_PP = zeros((num_inputs, num_inputs))  # only its upper triangle counts
        self.cross_PK = zeros((num_inputs, num_targets))
        self.totals_K = zeros((num_targets,))
        self.squares_M = zeros((num_models,))

    @property
    def mean_eigenvalue(self) -> float:
        """tr(G) / P, in units of which strengths are given."""
        return float(self.gram_PP.diagonal().sum()) / len(self.gram_PP)

    def tensors(self) -> tuple[Tensor, ...]:
        """All sums; the sums of the whole are the totals over its parts."""
        return self.count, self.gram_PP, self.cross_PK, self.totals_K, self.squares_M

    def add_rows(self, inputs_NP: Tensor, targets_NK: Tensor) -> None:
        """Add the sums of rows, both float64; DataError for inputs that are not finite."""
        if not len(inputs_NP):
            return
        if not inputs_NP.isfinite().all():
            raise DataError("features contain NaN or infinity", hint="Compute the features again, or drop the rows")
        if inputs_NP.is_cpu:  # a symmetric product, half the work of a general one; C's order transposed is Fortran's
            blas.dsyrk(1.0, inputs_NP.numpy().T, beta=1.0, c=self.gram_PP.numpy().T, lower=1, overwrite_c=1)
        else:
            self.gram_PP.addmm_(inputs_NP.T, inputs_NP)
        self.cross_PK.addmm_(inputs_NP.T, targets_NK)
        self.totals_K += targets_NK.sum(0)
        self.squares_M += targets_NK.square().sum(0).view(len(self.squares_M), -1).sum(1)
        self.count += len(inputs_NP)

    def add(self, other: RidgeSums) -> None:
        """Add the sums of other rows."""
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine += theirs

    def plus(self, other: RidgeSums, weight: float) -> RidgeSums:
        """The sums of these rows, and of others that count for `weight` each; both stay as they are."""
        sums = RidgeSums(len(self.gram_PP), len(self.totals_K), len(self.squares_M), self.count.device)
        for mine, ours, theirs in zip(sums.tensors(), self.tensors(), other.tensors(), strict=True):
            torch.add(ours, theirs, alpha=weight, out=mine)
        return sums

    def grown(self, num_labels: int) -> RidgeSums:
        """The sums of the same rows where every model has targets for more labels, all 0."""
        num_models = len(self.squares_M)
        sums = RidgeSums(0, num_models * num_labels, num_models)
        sums.count, sums.gram_PP, sums.squares_M = self.count, self.gram_PP, self.squares_M
        missing = num_labels - len(self.totals_K) // num_models
        sums.cross_PK, sums.totals_K = (
            F.pad(targets.unflatten(-1, (num_models, -1)), (0, missing)).flatten(-2)  # type: ignore[no-untyped-call]
            for targets in (self.cross_PK, self.totals_K)
        )
        return sums

    def every_second(self) -> RidgeSums:
        """The sums over the same rows of every second input."""
        sums = RidgeSums(0, len(self.totals_K), len(self.squares_M))
        sums.count, sums.totals_K, sums.squares_M = self.count, self.totals_K, self.squares_M
        sums.gram_PP, sums.cross_PK = self.gram_PP[::2, ::2].contiguous(), self.cross_PK[::2].contiguous()
        return sums

    def balanced(self, share: float) -> RidgeSums:
        """The sums of as many rows, had class c not n_c of them but a number that goes with n_c^(1 - share).

        Its rows then lie about its mean m_c as those of all classes do: G + sum_c (n'_c - n_c) m_c m_c^T. The first
        model's targets must be labels, all of one size; those of other models are taken to go with them.
        """
        labels_C = self.totals_K.chunk(len(self.squares_M))[0]
        seen_C = labels_C > 0
        count_C = self.count * labels_C / labels_C.sum()
        wanted_C = torch.where(seen_C, count_C ** (1 - share), 0)
        wanted_C = wanted_C * (self.count / wanted_C.sum())
        mean_PC = self.cross_PK[:, : len(labels_C)] / torch.where(seen_C, labels_C, 1)
        ratio_K = torch.where(seen_C, wanted_C / torch.where(seen_C, count_C, 1), 1).repeat(len(self.squares_M))
        sums = RidgeSums(len(self.gram_PP), len(self.totals_K), len(self.squares_M), self.count.device)
        changed_PP = torch.addmm(self.gram_PP, mean_PC * (wanted_C - count_C), mean_PC.T).triu_()
        parts = (self.count, changed_PP, self.cross_PK * ratio_K, self.totals_K * ratio_K, self.squares_M)
        for mine, theirs in zip(sums.tensors(), parts, strict=True):
            mine.copy_(theirs)
        return sums

    def state_dict(self) -> dict[str, Any]:
        """The sums as tensors; of G the triangle alone, row by row."""
        return {
            "count": self.count,
            "gram": torch.cat([row_P[at:] for at, row_P in enumerate(self.gram_PP)] or [self.gram_PP.flatten()]),
            "cross": self.cross_PK,
            "totals": self.totals_K,
            "squares": self.squares_M,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> RidgeSums:
        """Restore what `state_dict` gave."""
        num_inputs, num_targets = state["cross"].shape
        sums = cls(num_inputs, num_targets, len(state["squares"]), state["cross"].device)
        rows = torch.split(state["gram"], list(range(num_inputs, 0, -1)))
        for at, row in enumerate(rows):
            sums.gram_PP[at, at:] = row
        parts = [state[name] for name in ("count", "cross", "totals", "squares")]
        for mine, theirs in zip((sums.count, sums.cross_PK, sums.totals_K, sums.squares_M), parts, strict=True):
            mine.copy_(theirs)
        return sums


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


def factor_of(sums: RidgeSums, strength: float) -> Tensor:
    """U of G + lambda I = U^T U, upper triangular. Raises LinAlgError if the matrix is not positive definite."""
    return _cholesky(sums.gram_PP.clone(), strength * sums.mean_eigenvalue)


def _cholesky(matrix: Tensor, ridge: float) -> Tensor:
    """The upper factor of the matrix, of which the upper triangle is read, with a ridge added in place.

    On a CPU by LAPACK, which overwrites the one copy: torch makes two more, and takes 1.6 times as long.
    """
    matrix.diagonal().add_(ridge)
    if not matrix.is_cpu:
        return torch.linalg.cholesky(matrix, upper=True)
    # The upper triangle in C's order is the lower one in Fortran's.
    factor, failed = lapack.dpotrf(matrix.numpy().T, lower=1, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError(f"G + {ridge:g} I is not positive definite")
    return torch.from_numpy(factor.T)


def _full_rank(sums: RidgeSums, strength: float) -> _Solution:
    """The solution from a factor of G + lambda I itself."""
    factor = factor_of(sums, strength)
    solution_PK = torch.cholesky_solve(sums.cross_PK, factor, upper=True)
    return solution_PK, len(factor) - strength * sums.mean_eigenvalue * _inverse_trace(factor)


def _low_rank(sums: RidgeSums) -> Callable[[float], _Solution]:
    """The solution at any strength, once G is reduced to its rank, by LAPACK's pivoted Cholesky factor on a CPU.

    torch has no such factor. On other devices the eigenvectors of G do the same; on a CPU they take 20 times as long.
    """
    return _low_rank_on_cpu(sums) if sums.gram_PP.is_cpu else _by_eigenvectors(sums)


def _low_rank_on_cpu(sums: RidgeSums) -> Callable[[float], _Solution]:
    pivoted, pivots, rank, _ = lapack.dpstrf(sums.gram_PP.numpy().T, lower=1)
    order = torch.from_numpy(pivots).long() - 1  # Fortran counts from 1
    upper_RP = torch.from_numpy(pivoted.T)[:rank].triu()  # of the inputs in the order of the pivots
    triangle_RR, cross_RK = upper_RP[:, :rank].T, sums.cross_PK[order[:rank]]
    target_RK = torch.linalg.solve_triangular(triangle_RR, cross_RK, upper=False)
    gram_RR = upper_RP @ upper_RP.T

    def solve(strength: float) -> _Solution:
        ridge = strength * sums.mean_eigenvalue
        factor = _cholesky(gram_RR.clone(), ridge)
        weight_PK = torch.empty_like(sums.cross_PK)
        weight_PK[order] = upper_RP.T @ torch.cholesky_solve(target_RK, factor, upper=True)
        return weight_PK, rank - ridge * _inverse_trace(factor)

    return solve


def _by_eigenvectors(sums: RidgeSums) -> Callable[[float], _Solution]:
    values_P, vectors_PP = torch.linalg.eigh(sums.gram_PP, UPLO="U")
    values_P, target_PK = values_P.clamp_min(0), vectors_PP.T @ sums.cross_PK

    def solve(strength: float) -> _Solution:
        shifted_P = values_P + strength * sums.mean_eigenvalue
        return vectors_PP @ (target_PK / shifted_P[:, None]), float((values_P / shifted_P).sum())

    return solve


def _inverse_trace(factor: Tensor) -> float:
    """The trace of (U^T U)^-1. On a CPU the triangle alone is inverted, which torch does not offer; it is overwritten.

    That takes half the time of the whole inverse.
    """
    if not factor.is_cpu:
        return float(torch.cholesky_inverse(factor, upper=True).diagonal().sum())
    inverse, _ = lapack.dtrtri(factor.numpy().T, lower=1, overwrite_c=1)
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
