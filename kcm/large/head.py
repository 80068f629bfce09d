"""A multinomial logistic head on frozen features: its fit, its strength, and its out-of-fold outputs.

One fit gives the head of all rows and, for every fold, the head that has not seen it. Losses and gradients are sums
over rows, so every step of L-BFGS reads the rows once, for all heads together, and the rows may be more than memory
holds. The objective is scikit-learn's, convex with one minimum: where the steps begin decides nothing.
Shapes: N rows of a batch, D features, C classes, P classes that occur, F folds, H heads: one for each fold, then the
one for all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from kcm.errors import ArtefactError, DataError
from kcm.tasks.hashing import draw

C_GRID = (1.0, 10.0, 100.0)
"""Inverse strengths of the L2 penalty that are tried; features are unit vectors."""

MAX_STEPS = 200
_ABSENT = -1e4  # logit of a class without train rows: probability 0, and still finite


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A linear classifier: weight float32 [C, D], bias float32 [C]."""

    weight_CD: NDArray[np.float32]
    bias_C: NDArray[np.float32]

    @classmethod
    def zeros(cls, num_classes: int, dim: int) -> LinearHead:
        """A head that gives all classes the same probability."""
        return cls(np.zeros((num_classes, dim), dtype=np.float32), np.zeros(num_classes, dtype=np.float32))

    def probabilities(self, features_ND: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 [N, C]."""
        probabilities_NC: np.ndarray = softmax(features_ND @ self.weight_CD.T + self.bias_C, axis=1)
        return probabilities_NC.astype(np.float32)

    def save(self, path: Path) -> None:
        """Write the two tensors as safetensors."""
        save_file({"weight": self.weight_CD, "bias": self.bias_C}, path)

    @classmethod
    def load(cls, path: Path) -> LinearHead:
        """Read what `save` wrote. Raises ArtefactError when it is missing or damaged."""
        try:
            tensors = load_file(path)
            return cls(tensors["weight"], tensors["bias"])
        except Exception as error:  # safetensors' own error kind is not exported
            raise ArtefactError(f"not a large-model head: {error}", where=str(path)) from None


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Features float32 [N, D], labels [N], and the fold of each row [N]."""

    features_ND: NDArray[np.float32]
    label_N: NDArray[np.int64]
    fold_N: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FoldedHeads:
    """The head of all rows, and for each fold the head that has not seen it."""

    head: LinearHead
    left_out: tuple[LinearHead, ...]

    def out_of_fold(self, features_ND: NDArray[np.float32], fold_N: NDArray[np.int64]) -> NDArray[np.float32]:
        """The probabilities [N, C] of rows of these folds, by the heads that have not seen them."""
        probabilities_NC = np.empty((len(features_ND), len(self.head.bias_C)), dtype=np.float32)
        for fold, head in enumerate(self.left_out):
            probabilities_NC[fold_N == fold] = head.probabilities(features_ND[fold_N == fold])
        return probabilities_NC


@dataclass(frozen=True)
class HeadFit:
    """A head fitted on all train rows, the chosen strength, and out-of-fold outputs for every train row.

    Distillation must use `out_of_fold_NC` (float32): on its own train rows the head is overconfident.
    """

    head: LinearHead
    c: float
    out_of_fold_NC: np.ndarray


def fit_head(
    features_ND: np.ndarray,
    labels_N: np.ndarray,
    groups_N: Sequence[str],
    num_classes: int,
    *,
    num_folds: int = 5,
    seed: int = 0,
    grid: Sequence[float] = C_GRID,
) -> HeadFit:
    """Fit a head on train rows; the strength with the least out-of-fold log loss wins.

    `groups_N` names what must not be torn between folds; give row ids where rows stand alone. The out-of-fold outputs
    are those of the winner. Raises DataError when there are fewer than two classes or groups, or features are not
    finite.
    """
    if len(bad := np.flatnonzero(~np.isfinite(features_ND).all(axis=1))):
        raise DataError(f"features of {len(bad)} rows are not finite, the first is row {bad[0]}", where="large head")
    if len(set(groups_N)) < 2 or len(np.unique(labels_N)) < 2:
        raise DataError("the large model's head needs train rows of at least two classes and two groups", where="train")
    rows = LabelledRows(features_ND, labels_N, assign_folds(labels_N, groups_N, num_folds, seed))
    heads = FoldedHeads(LinearHead.zeros(num_classes, features_ND.shape[1]), ())
    fits, losses = [], []
    for c in sorted(grid):  # from the strongest penalty to the weakest, each started from the one before
        heads = fit_heads(lambda: [rows], heads.head, c, num_folds, tolerance=1e-4)  # scikit-learn's own
        out_of_fold_NC = heads.out_of_fold(features_ND, rows.fold_N)
        right_N = out_of_fold_NC[np.arange(len(labels_N)), labels_N].astype(np.float64)
        losses.append(float(-np.log(np.maximum(right_N, 1e-12)).mean()))
        fits.append(HeadFit(heads.head, c, out_of_fold_NC))
    return fits[int(np.argmin(losses))]


def fit_heads(
    rows: Callable[[], Iterable[LabelledRows]], start: LinearHead, c: float, num_folds: int, tolerance: float = 1e-6
) -> FoldedHeads:
    """Fit on the rows that `rows` gives, as often as it is called.

    `c` is the inverse strength of the penalty, as in `fit_head`; `start` a head of all classes and features;
    `tolerance` the largest entry of the mean gradient at which the fit ends.
    """
    num_classes, dim = start.weight_CD.shape
    counts_FC = np.zeros((num_folds, num_classes))
    for batch in rows():
        np.add.at(counts_FC, (batch.fold_N, batch.label_N), 1)
    counts_HC = np.vstack([counts_FC.sum(axis=0) - counts_FC, counts_FC.sum(axis=0)])
    num_rows_H = np.maximum(counts_HC.sum(axis=1), 1)
    present = np.flatnonzero(counts_HC[-1])
    num_heads, num_present = num_folds + 1, len(present)
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
            weight_gradient_KD = off_NHP.reshape(size, -1).T.astype(np.float32) @ batch.features_ND
            gradient_HPD[..., :dim] += weight_gradient_KD.reshape(*shape[:2], dim)
        return loss, gradient_HPD.reshape(-1)

    start_PD = np.concatenate([start.weight_CD[present], np.maximum(start.bias_C[present], -10)[:, None]], axis=1)
    optimum = minimize(
        objective,
        np.tile(start_PD.astype(np.float64), (num_heads, 1, 1)).reshape(-1),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_STEPS, "gtol": tolerance, "ftol": 1e-12},
    )
    heads = []
    for head_PD, counts_C in zip(optimum.x.reshape(shape).astype(np.float32), counts_HC, strict=True):
        head = LinearHead.zeros(num_classes, dim)
        head.weight_CD[present], head.bias_C[present] = head_PD[:, :dim], head_PD[:, dim]
        head.bias_C[counts_C == 0] = _ABSENT
        heads.append(head)
    return FoldedHeads(heads[-1], tuple(heads[:-1]))


def assign_folds(labels_N: np.ndarray, groups_N: Sequence[str], num_folds: int, seed: int) -> np.ndarray:
    """The fold of every row, int [N]: groups are dealt out in turn, ordered by their smallest label and then by draw.

    There are at most as many folds as groups.
    """
    smallest: dict[str, int] = {}
    for label, group in zip(labels_N.tolist(), groups_N, strict=True):
        smallest[group] = min(label, smallest.get(group, label))
    ordered = sorted(smallest, key=lambda group: (smallest[group], draw(seed, "fold", group)))
    folds = {group: position % num_folds for position, group in enumerate(ordered)}
    return np.array([folds[group] for group in groups_N])
