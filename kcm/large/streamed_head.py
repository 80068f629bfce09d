"""A multinomial logistic head fitted on more rows than memory holds, with one head for each fold that is left out.

Losses and gradients are sums over rows, so every step of L-BFGS reads the rows once, some thousand at a time, for all
heads together. The objective is that of `fit_head`, convex with one minimum: where the steps begin decides nothing.
Shapes: N rows of a batch, D features, C classes, P classes that occur, H heads: one for each fold, then the one for
all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from kcm.large.head import LinearHead, scattered

MOST_STEPS, TOLERANCE = 200, 1e-6  # of a mean gradient


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Features float32 [N, D], labels [N], and the fold of each row [N]."""

    features_ND: NDArray[np.float32]
    label_N: NDArray[np.int64]
    fold_N: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class StreamedFit:
    """The head of all rows, and for each fold the head that has not seen it."""

    head: LinearHead
    left_out: tuple[LinearHead, ...]

    def out_of_fold(self, features_ND: NDArray[np.float32], fold_N: NDArray[np.int64]) -> NDArray[np.float32]:
        """The probabilities [N, C] of rows of these folds, by the heads that have not seen them."""
        found = np.empty((len(features_ND), len(self.head.bias_C)), dtype=np.float32)
        for fold, head in enumerate(self.left_out):
            found[fold_N == fold] = head.probabilities(features_ND[fold_N == fold])
        return found


def fit_streamed(
    rows: Callable[[], Iterable[LabelledRows]], start: LinearHead, c: float, num_folds: int
) -> StreamedFit:
    """Fit on the rows that `rows` gives, as often as it is called.

    `c` is the inverse strength of the penalty, as in `fit_head`; `start` a head of all classes and features.
    """
    num_classes, dim = start.weight_CD.shape
    counts_FC = np.zeros((num_folds, num_classes))
    for batch in rows():
        np.add.at(counts_FC, (batch.fold_N, batch.label_N), 1)
    present = np.flatnonzero(counts_FC.sum(axis=0))
    num_heads, num_present = num_folds + 1, len(present)
    num_rows_H = np.maximum(np.append(counts_FC.sum() - counts_FC.sum(axis=1), counts_FC.sum()), 1)
    place_C = np.full(num_classes, -1)
    place_C[present] = np.arange(num_present)
    # scikit-learn gives two classes one row of weights, which is half as long in each of ours.
    penalty_H = (2 if num_present == 2 else 1) / (c * num_rows_H)
    shape = (num_heads, num_present, dim + 1)

    def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        values_HPD = flat.reshape(shape)
        weight_HPD = values_HPD[..., :dim]
        gradient_HPD = np.zeros(shape)
        gradient_HPD[..., :dim] = penalty_H[:, None, None] * weight_HPD
        loss = 0.5 * float((penalty_H * np.square(weight_HPD).sum(axis=(1, 2))).sum())
        stacked_KD = weight_HPD.reshape(-1, dim).astype(np.float32)
        bias_HP = values_HPD[..., dim]
        for batch in rows():
            size = len(batch.label_N)
            logits_NHP = (batch.features_ND @ stacked_KD.T).astype(np.float64).reshape(size, num_heads, -1) + bias_HP
            log_p_NHP = log_softmax(logits_NHP, axis=2)
            share_NH = (batch.fold_N[:, None] != np.arange(num_heads)) / num_rows_H  # no row is of the last one
            label_N = place_C[batch.label_N]
            loss -= float((share_NH * log_p_NHP[np.arange(size), :, label_N]).sum())
            off_NHP = np.exp(log_p_NHP)
            off_NHP[np.arange(size), :, label_N] -= 1
            off_NHP *= share_NH[:, :, None]
            gradient_HPD[..., dim] += off_NHP.sum(axis=0)
            gradient_HPD[..., :dim] += (off_NHP.reshape(size, -1).T @ batch.features_ND).reshape(*shape[:2], dim)
        return loss, gradient_HPD.reshape(-1)

    began_PD = np.concatenate([start.weight_CD[present], np.maximum(start.bias_C[present], -10)[:, None]], axis=1)
    found = minimize(
        objective,
        np.tile(began_PD.astype(np.float64), (num_heads, 1, 1)).reshape(-1),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MOST_STEPS, "gtol": TOLERANCE, "ftol": 1e-12},
    )
    heads = [scattered(each_PD[:, :dim], each_PD[:, dim], present, num_classes) for each_PD in found.x.reshape(shape)]
    return StreamedFit(heads[-1], tuple(heads[:-1]))
