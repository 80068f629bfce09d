"""Ridge regression of rows, with the predictions that each unit gets when it is left out.

Shapes: N rows, P inputs, K targets, R the rank of the inputs, G units of M rows each, S strengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kcm.closed_form.gcv import RidgeSums, factor_of
from kcm.metrics.intervals import Units

CHUNK_ROWS = 2048  # read at once
_STRENGTHS = np.logspace(-6, 1, 29)  # relative to the largest eigenvalue


@dataclass(frozen=True, eq=False)
class LeftOutRidge:
    """y = constant + x @ weight; `left_out` are the predictions of fits that never saw the row's unit.

    All left-out predictions share the mean of all targets: see `_left_out_means`.
    """

    weight: NDArray[np.float64]  # [P, K]
    constant: NDArray[np.float64]  # [K]
    left_out: NDArray[np.float64]  # [N, K]


def ridge_left_out(
    read: Callable[[NDArray[np.intp]], NDArray[np.float64]],
    targets_NK: NDArray[np.float64],
    units: Units,
) -> LeftOutRidge:
    """Fit every target for itself, its strength chosen by the squared error of the left-out predictions.

    The constant is not penalised. With H the hat matrix and r the residuals of all rows, the residuals of a left-out
    unit g are (I - H_gg)^-1 r_g. `units` are at least two. `read` gives the inputs [n, P] at positions [n]; they are
    read twice, chunk by chunk: memory goes with P^2, time with N P^2.
    """
    num_rows, chunks = len(targets_NK), list(_chunks(units, len(targets_NK)))
    mean_K = targets_NK.mean(0)
    y_NK = targets_NK - mean_K
    sum_P = gram_PP = cross_PK = np.zeros(())
    for rows in chunks:
        inputs_nP = read(rows)
        sum_P, gram_PP = sum_P + inputs_nP.sum(0), gram_PP + inputs_nP.T @ inputs_nP
        cross_PK = cross_PK + inputs_nP.T @ y_NK[rows]
    mean_P = sum_P / num_rows
    square_R, right_PR = _spectrum(gram_PP - num_rows * np.outer(mean_P, mean_P))
    singular_R = np.sqrt(square_R)
    projected_RK = (right_PR.T @ cross_PK) / singular_R[:, None]  # y has mean 0: inputs need not be centred
    strengths_S = _STRENGTHS * float(square_R.max(initial=0))
    shrink_SR = square_R / (square_R + strengths_S[:, None])
    left_out_SNK = np.empty((len(strengths_S), *y_NK.shape))
    means_NK = np.empty_like(y_NK)
    for rows in chunks:
        left_nR = (read(rows) - mean_P) @ right_PR / singular_R
        blocks = list(_blocks(units.of(rows), len(rows)))
        left_out_SNK[:, rows] = _left_out(left_nR, shrink_SR, projected_RK, y_NK[rows], blocks, num_rows)
        means_NK[rows] = _left_out_means(y_NK[rows], blocks, num_rows)
    best_K, left_out_NK = _best(left_out_SNK, y_NK)
    weight_PK = right_PR @ (singular_R[:, None] / (square_R[:, None] + strengths_S[best_K]) * projected_RK)
    return LeftOutRidge(weight_PK, mean_K - mean_P @ weight_PK, mean_K + left_out_NK - means_NK)


@dataclass(frozen=True, eq=False)
class GramRidge:
    """y = mean + (x - mean of all x) @ X.T @ dual, where X are the fitted rows' inputs; the dual sums to zero.

    `left_out` as in `LeftOutRidge`.
    """

    dual: NDArray[np.float64]  # [N, K]
    mean: NDArray[np.float64]  # [K]
    left_out: NDArray[np.float64]  # [N, K]


def gram_ridge_left_out(gram_NN: NDArray[np.float64], targets_NK: NDArray[np.float64], units: Units) -> GramRidge:
    """As `ridge_left_out`, of inputs known by their inner products alone: sparse ones, or sums over several kinds."""
    mean_N, mean_K = gram_NN.mean(0), targets_NK.mean(0)
    y_NK = targets_NK - mean_K
    square_R, left_NR = _spectrum(gram_NN - mean_N - mean_N[:, None] + mean_N.mean())
    strengths_S, blocks = _STRENGTHS * float(square_R.max(initial=0)), list(_blocks(units, len(y_NK)))
    shrink_SR, projected_RK = square_R / (square_R + strengths_S[:, None]), left_NR.T @ y_NK
    left_out_SNK = _left_out(left_NR, shrink_SR, projected_RK, y_NK, blocks, len(y_NK))
    best_K, left_out_NK = _best(left_out_SNK, y_NK)
    dual_NK = left_NR @ (projected_RK / (square_R[:, None] + strengths_S[best_K]))
    return GramRidge(dual_NK, mean_K, mean_K + left_out_NK - _left_out_means(y_NK, blocks, len(y_NK)))


def left_out_of_sums(
    sums: RidgeSums,
    strengths: Sequence[float],
    inputs_NP: Tensor,
    targets_NK: Tensor,
    units: Units,
) -> Tensor:
    """What rows that are part of `sums` get when their unit is taken out of the sums, [N, K].

    `strengths` are those of every model's regression, whose targets lie side by side. With H = X A^-1 X^T and r the
    residuals of all rows, the residuals of a unit that is left out are (I - H_gg)^-1 r_g: the factor of A serves all
    rows. Exact where every row counts once in the sums.
    """
    blocks = [torch.from_numpy(rows_GM).to(inputs_NP.device) for rows_GM in _blocks(units, len(inputs_NP))]
    factors = {strength: factor_of(sums, strength) for strength in dict.fromkeys(strengths)}
    # (L^-1 X^T)^T as X U^-1.
    white = {
        strength: torch.linalg.solve_triangular(factor, inputs_NP, upper=True, left=False)
        for strength, factor in factors.items()
    }
    parts = []
    of_models = zip(strengths, targets_NK.chunk(len(strengths), 1), sums.cross_PK.chunk(len(strengths), 1), strict=True)
    for strength, y_NK, cross_PK in of_models:
        residual_NK = y_NK - inputs_NP @ torch.cholesky_solve(cross_PK, factors[strength], upper=True)
        left_out_NK = torch.empty_like(y_NK)
        for rows_GM in blocks:
            white_GMP = white[strength][rows_GM]
            hat_GMM = white_GMP @ white_GMP.mT
            rest_GMM = torch.eye(rows_GM.shape[1]).to(hat_GMM) - hat_GMM
            left_out_NK[rows_GM] = y_NK[rows_GM] - torch.linalg.solve(rest_GMM, residual_NK[rows_GM])
        parts.append(left_out_NK)
    return torch.cat(parts, 1)


def class_mean_scores(sums: RidgeSums, strengths: Sequence[float]) -> list[Tensor]:
    """The mean scores [C, C] of every class for every label, by model; targets of the first model are labels."""
    labels_PC, totals_C = (each.chunk(len(strengths), -1)[0] for each in (sums.cross_PK, sums.totals_K))
    mean_PC = labels_PC / torch.where(totals_C > 0, totals_C, 1)
    factors = {strength: factor_of(sums, strength) for strength in dict.fromkeys(strengths)}
    return [
        mean_PC.T @ torch.cholesky_solve(cross_PC, factors[strength], upper=True)
        for strength, cross_PC in zip(strengths, sums.cross_PK.chunk(len(strengths), 1), strict=True)
    ]


def without_own_class(scores_NC: Tensor, labels_N: Tensor, mean_scores_CC: Tensor, target: float) -> Tensor:
    """What a regression on labels would say of rows, had it never seen their class: [N, C], -inf for that class.

    With A = G + lambda I, q_c the class's sum of inputs times the target, and its n rows taken to lie at their mean,
    A without the class is A - q_c q_c^T / (n target^2), so that by Sherman and Morrison

        score_k(x)  becomes  score_k(x) + score_c(x) m_ck / (target - m_cc),    m_ck = q_c^T A^-1 q_k / (n target)

    where m_ck, `mean_scores_CC`, is the class's mean score for label k. Sums and solution are enough: no row is read.
    How rows of the class lie about their mean stays in the sums; the sums of one class alone are not kept.
    """
    own_N1 = scores_NC.gather(1, labels_N[:, None])
    share_N1 = own_N1 / (target - mean_scores_CC.diagonal()[labels_N])[:, None]
    return (scores_NC + share_N1 * mean_scores_CC[labels_N]).scatter(1, labels_N[:, None], -torch.inf)


def _best(left_out_SNK: NDArray[np.float64], y_NK: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The index of the best strength for each target, [K], and the left-out predictions with it, [N, K]."""
    best_K = np.square(left_out_SNK - y_NK).sum(1).argmin(0)
    return best_K, left_out_SNK[best_K, :, np.arange(len(best_K))].T


def _spectrum(gram: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues [R], descending, and eigenvectors [N, R] of a Gram matrix, without those that are rounding alone."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > max(values[-1], 1e-300) * 1e-12
    return values[kept][::-1], vectors[:, kept][:, ::-1]


def _blocks(units: Units, num_rows: int) -> Iterator[NDArray[np.intp]]:
    """Row positions [G, M] of all units of M rows, for every size M."""
    if not units.grouped:
        yield np.arange(num_rows)[:, None]
        return
    order = np.argsort(units.code, kind="stable")
    first = np.cumsum(units.size) - units.size
    for size in np.unique(units.size):
        yield order[first[units.size == size][:, None] + np.arange(size)]


def _chunks(units: Units, num_rows: int) -> Iterator[NDArray[np.intp]]:
    """Positions of all rows, units whole, in chunks of about `CHUNK_ROWS`."""
    if not units.grouped:
        yield from np.array_split(np.arange(num_rows), max(1, -(-num_rows // CHUNK_ROWS)))
        return
    order, ends = np.argsort(units.code, kind="stable"), np.cumsum(units.size)
    # The units that reach into the next chunk's rows end this chunk.
    cuts = np.searchsorted(ends, np.arange(CHUNK_ROWS, num_rows, CHUNK_ROWS))
    yield from (rows for rows in np.split(order, np.unique(ends[cuts])) if len(rows))


def _left_out(
    left_NR: NDArray[np.float64],
    shrink_SR: NDArray[np.float64],
    projected_RK: NDArray[np.float64],
    y_NK: NDArray[np.float64],
    blocks: list[NDArray[np.intp]],
    num_rows: int,
) -> NDArray[np.float64]:
    """Predictions of y, whose mean is 0, for every unit from all the others, by strength: [S, N, K].

    `projected_RK` are the products of the left vectors and y over all `num_rows` rows, of which these may be a part.
    """
    # One product for all strengths: the left vectors, which fit no cache, are read once.
    shrunk_RSK = shrink_SR.T[:, :, None] * projected_RK[:, None]
    fitted_NSK = np.tensordot(left_NR, shrunk_RSK, 1)
    residual_SNK = y_NK - fitted_NSK.swapaxes(0, 1)
    predicted_SNK = np.empty_like(residual_SNK)
    for rows_GM in blocks:
        left_GMR = left_NR[rows_GM]
        if rows_GM.shape[1] == 1:  # nearly always: a division in place of a system of equations
            hat_SG = 1 / num_rows + shrink_SR @ np.square(left_GMR[:, 0]).T
            left_residual_SGK = residual_SNK[:, rows_GM[:, 0]] / (1 - hat_SG[:, :, None])
            predicted_SNK[:, rows_GM[:, 0]] = y_NK[rows_GM[:, 0]] - left_residual_SGK
            continue
        for shrink_R, residual_NK, predicted_NK in zip(shrink_SR, residual_SNK, predicted_SNK, strict=True):
            hat_GMM = 1 / num_rows + np.einsum("gmr,r,gnr->gmn", left_GMR, shrink_R, left_GMR)
            left_residual_GMK = np.linalg.solve(np.eye(rows_GM.shape[1]) - hat_GMM, residual_NK[rows_GM])
            predicted_NK[rows_GM] = y_NK[rows_GM] - left_residual_GMK
    return predicted_SNK


def _left_out_means(y_NK: NDArray[np.float64], blocks: list[NDArray[np.intp]], num_rows: int) -> NDArray[np.float64]:
    """Mean of y, whose own mean is 0, over all other units, [N, K].

    It falls where a row's own y is high. Left in the predictions, it would order rows that nothing else tells apart
    by their labels, upside down.
    """
    mean_NK = np.empty_like(y_NK)
    for rows_GM in blocks:
        others = num_rows - rows_GM.shape[1]
        mean_NK[rows_GM] = -y_NK[rows_GM].sum(1, keepdims=True) / others
    return mean_NK
