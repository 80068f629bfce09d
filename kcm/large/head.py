"""A multinomial logistic head on frozen features; cross-validation gives its strength and out-of-fold outputs.

Classes can be added to a head: fitted classes stay, and the odds among them do not change.

Shapes: N rows, D features, C classes, A added classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax

from kcm.errors import ArtefactError, DataError
from kcm.metrics.calibration import negative_log_likelihood
from kcm.tasks.splits import draw

C_GRID = (1.0, 10.0, 100.0)
"""Inverse strengths of the L2 penalty to try; features are unit vectors."""

_ABSENT = -1e4  # logit of a class without train rows: probability 0, but finite


@dataclass(frozen=True)
class LinearHead:
    """A linear classifier: weight float32 [C, D], bias float32 [C]."""

    weight_CD: np.ndarray
    bias_C: np.ndarray

    def logits(self, features_ND: np.ndarray) -> np.ndarray:
        """Logits [N, C]."""
        return features_ND @ self.weight_CD.T + self.bias_C

    def probabilities(self, features_ND: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 [N, C]."""
        probabilities_NC: np.ndarray = softmax(self.logits(features_ND), axis=1)
        return probabilities_NC.astype(np.float32)

    def first(self, num_classes: int) -> LinearHead:
        """The head of the first classes: the head before later classes were added."""
        return LinearHead(self.weight_CD[:num_classes], self.bias_C[:num_classes])

    def save(self, path: Path) -> None:
        """Write the two tensors as safetensors."""
        save_file({"weight": self.weight_CD, "bias": self.bias_C}, path)

    @classmethod
    def load(cls, path: Path) -> LinearHead:
        """Read a saved head. Raises ArtefactError if it is missing or damaged."""
        try:
            tensors = load_file(path)
            return cls(tensors["weight"], tensors["bias"])
        except Exception as error:  # safetensors' own error kind is not exported
            raise ArtefactError(f"not a large-model head: {error}", where=str(path)) from None


@dataclass(frozen=True)
class HeadFit:
    """A head fitted on all train rows, its strength, and out-of-fold outputs for every train row.

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
    known: LinearHead | None = None,
) -> HeadFit:
    """Fit a head on train rows; the strength with the lowest out-of-fold log loss wins.

    `groups_N` names the units that folds must not split; pass row ids if rows stand alone. The out-of-fold outputs come
    from the winner. A `known` head stays as it is, and only further classes are fitted. Raises DataError for fewer than
    two classes or groups, or for features that are not finite.
    """
    path = _path if known is None else partial(_grown_path, known)
    if len(bad := np.flatnonzero(~np.isfinite(features_ND).all(axis=1))):
        raise DataError(f"features of {len(bad)} rows are not finite, the first is row {bad[0]}", where="large head")
    if len(set(groups_N)) < 2 or len(np.unique(labels_N)) < 2:
        raise DataError("the large model's head needs train rows of at least two classes and two groups", where="train")
    fold_N = assign_folds(labels_N, groups_N, num_folds, seed)
    outputs = {c: np.zeros((len(labels_N), num_classes), dtype=np.float32) for c in sorted(grid)}
    for fold in np.unique(fold_N):
        held_out = fold_N == fold
        for c, head in path(features_ND[~held_out], labels_N[~held_out], num_classes, sorted(grid)):
            outputs[c][held_out] = head.probabilities(features_ND[held_out])
    best = min(outputs, key=lambda c: negative_log_likelihood(np.log(np.maximum(outputs[c], 1e-12)), labels_N))
    *_, (_, head) = path(features_ND, labels_N, num_classes, [c for c in sorted(grid) if c <= best])
    return HeadFit(head, best, outputs[best])


def _path(
    features_ND: np.ndarray, labels_N: np.ndarray, num_classes: int, strengths: Sequence[float]
) -> Iterator[tuple[float, LinearHead]]:
    """Heads from the strongest penalty to the weakest; each fit starts from the previous one."""
    present = np.unique(labels_N)
    if len(present) == 1:
        only = _scatter(np.zeros((1, features_ND.shape[1])), np.zeros(1), present, num_classes)
        yield from ((c, only) for c in strengths)
        return
    from sklearn.linear_model import LogisticRegression  # takes a second to import, and only fitting needs it

    model = LogisticRegression(max_iter=1000, warm_start=True)
    for c in strengths:
        model.set_params(C=c).fit(features_ND, labels_N)
        weight, bias = model.coef_, model.intercept_
        if len(present) == 2:  # scikit-learn returns a single row for two classes
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        yield c, _scatter(weight, bias, present, num_classes)


def _grown_path(
    known: LinearHead, features_ND: np.ndarray, labels_N: np.ndarray, num_classes: int, strengths: Sequence[float]
) -> Iterator[tuple[float, LinearHead]]:
    """Heads from the strongest penalty to the weakest, whose added classes compete with the sum of the known ones."""
    num_known = len(known.bias_C)
    new_labels = np.unique(labels_N[labels_N >= num_known])
    known_N1 = logsumexp(known.logits(features_ND).astype(np.float64), axis=1, keepdims=True)
    # The first output stands for all known classes together: the known head decides among them.
    is_output_NA = np.column_stack([labels_N < num_known, labels_N[:, None] == new_labels])
    inputs_ND = np.column_stack([features_ND, np.ones(len(features_ND))]).astype(np.float64)
    is_penalised_D = np.arange(inputs_ND.shape[1]) < features_ND.shape[1]
    weight_AD = np.zeros((len(new_labels), inputs_ND.shape[1]))
    for c in strengths:

        def loss(flat: np.ndarray, c: float = c) -> tuple[float, np.ndarray]:
            """scikit-learn's loss of `flat`, the weights [A, D] in a row, and its gradient."""
            weight_AD = flat.reshape(len(new_labels), -1)
            log_NA = log_softmax(np.column_stack([known_N1, inputs_ND @ weight_AD.T]), axis=1)
            penalised_AD = weight_AD * is_penalised_D
            slope_AD = c * (np.exp(log_NA) - is_output_NA)[:, 1:].T @ inputs_ND + penalised_AD
            return (penalised_AD**2).sum() / 2 - c * log_NA[is_output_NA].sum(), slope_AD.ravel()

        if len(new_labels):
            weight_AD = minimize(loss, weight_AD.ravel(), jac=True, method="L-BFGS-B").x.reshape(weight_AD.shape)
        head = _scatter(weight_AD[:, :-1], weight_AD[:, -1], new_labels, num_classes)
        head.weight_CD[:num_known], head.bias_C[:num_known] = known.weight_CD, known.bias_C
        yield c, head


def _scatter(weight: np.ndarray, bias: np.ndarray, present: np.ndarray, num_classes: int) -> LinearHead:
    """A head with the present classes at their positions; all other classes have probability 0."""
    weight_CD = np.zeros((num_classes, weight.shape[1]), dtype=np.float32)
    bias_C = np.full(num_classes, _ABSENT, dtype=np.float32)
    weight_CD[present], bias_C[present] = weight, bias
    return LinearHead(weight_CD, bias_C)


def assign_folds(labels_N: np.ndarray, groups_N: Sequence[str], num_folds: int, seed: int) -> np.ndarray:
    """The fold of every row, int [N]: groups are dealt out in turn, ordered by their smallest label, then at random.

    There are never more folds than groups.
    """
    smallest: dict[str, int] = {}
    for label, group in zip(labels_N.tolist(), groups_N, strict=True):
        smallest[group] = min(label, smallest.get(group, label))
    groups = sorted(smallest, key=lambda group: (smallest[group], draw(seed, "fold", group)))
    folds = {group: position % num_folds for position, group in enumerate(groups)}
    return np.array([folds[group] for group in groups_N])
