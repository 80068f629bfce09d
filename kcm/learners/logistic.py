"""Logistic regression on the features: the control of every run, fitted to the rows of all tasks so far.

Shapes: N rows, I inputs of the network, C labels.
"""

from __future__ import annotations

import math
import zlib
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.distill import DistillConfig
from kcm.learners.analytic import write_solutions
from kcm.learners.base import Batch, LearnedTask, Learner
from kcm.learners.ranks import Ranks
from kcm.metrics.calibration import negative_log_likelihood
from kcm.metrics.intervals import Units

INVERSE_STRENGTHS = (1.0, 10.0, 100.0)  # for inputs of unit length; five folds of the rows choose one
MAX_ROWS = 50_000  # rows to fit on: those whose features have the smallest hashes
_NUM_FOLDS, _NUM_CHOOSING = 10, 5
_NEVER = -30.0  # logit of a label without rows


class Logistic(Learner):
    """scikit-learn's logistic regression, its strength by five folds, on the CPU; judge and small model are the same.

    For every task it streams the rows of all tasks so far, and holds the rows of the task that is being streamed.
    """

    closed_form: ClassVar[bool] = True
    on_cpu: ClassVar[bool] = True  # scikit-learn computes nowhere else

    def __init__(self) -> None:
        self._rows: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
        self._strength = INVERSE_STRENGTHS[0]

    def tasks_to_stream(self, task: int) -> range:
        """All tasks so far."""
        return range(task + 1)

    @torch.no_grad()
    def absorb(self, collaborator: Collaborator, batch: Batch, distill: DistillConfig, ranks: Ranks) -> None:
        """Hold the labelled rows of all ranks until the task ends, so that any rank can write a checkpoint."""
        batch = batch.labelled()
        rows = batch.weights.nonzero()[:, 0]
        inputs_NI = collaborator.inputs(batch.features[rows]).float().numpy()
        self._rows += ranks.gather((inputs_NI, batch.labels[rows].numpy()))
        if sum(len(labels) for _, labels in self._rows) > 2 * MAX_ROWS:
            self._rows = [_thin(*_join(self._rows))]

    def end_task(self, learned: LearnedTask) -> None:
        """Fit the rows of the tasks so far."""
        rows, self._rows = self._rows, []

        def fitted() -> list[tuple[Tensor, Tensor]]:
            fitted_rows = _thin(*_join(rows))
            self._strength = _chosen(*fitted_rows, learned.collaborator)
            weight_CP = torch.from_numpy(_fit(*fitted_rows, learned.collaborator, self._strength))
            return [(weight_CP, weight_CP.new_zeros(len(weight_CP)))]

        write_solutions(learned.collaborator, learned.ranks, fitted)

    def state_dict(self) -> dict[str, Any]:
        """The strength, and the rows held for the task that is being streamed."""
        if not self._rows:
            return {"strength": self._strength}
        inputs_NI, labels_N = _join(self._rows)
        held = {"inputs": torch.from_numpy(inputs_NI), "labels": torch.from_numpy(labels_N)}
        return held | {"strength": self._strength}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold these rows."""
        self._rows = [(state["inputs"].numpy(), state["labels"].numpy())] if "inputs" in state else []
        self._strength = state["strength"]

    def left_out(
        self, collaborator: Collaborator, rows: Batch, units: Units, distill: DistillConfig
    ) -> tuple[Tensor, Tensor]:
        """Ten folds of whole units; each fold is scored by a regression on the other nine."""
        with torch.no_grad():
            inputs_NI = collaborator.inputs(rows.features).float().numpy()
        labels_N = rows.labels.numpy()
        fold_U = np.random.default_rng(0).permutation(units.count) % _NUM_FOLDS
        fold_N = fold_U[units.code] if units.grouped else fold_U
        left_out_NC = torch.from_numpy(_out_of_fold(inputs_NI, labels_N, fold_N, collaborator, self._strength))
        return left_out_NC, left_out_NC


def _chosen(inputs_NI: NDArray[np.float32], labels_N: NDArray[np.int64], linear: Collaborator) -> float:
    """The strength of the smallest log loss on rows out of fold."""
    fold_N = np.random.default_rng(0).permutation(len(labels_N)) % _NUM_CHOOSING

    def loss(strength: float) -> float:
        return negative_log_likelihood(_out_of_fold(inputs_NI, labels_N, fold_N, linear, strength), labels_N)

    return min(INVERSE_STRENGTHS, key=loss)


def _out_of_fold(
    inputs_NI: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    fold_N: NDArray[np.int64],
    linear: Collaborator,
    strength: float,
) -> NDArray[np.float64]:
    """The logits of every row by a regression on the rows of the other folds, [N, C]."""
    logits_NC = np.full((len(labels_N), linear.num_labels), _NEVER)
    for fold in np.unique(fold_N):
        out_N = fold_N == fold
        if out_N.all():  # a single unit
            break
        weight_CP = _fit(inputs_NI[~out_N], labels_N[~out_N], linear, strength)
        logits_NC[out_N] = inputs_NI[out_N] @ weight_CP[:, :-1].T + weight_CP[:, -1]
    return logits_NC


def _fit(
    inputs_NI: NDArray[np.float32], labels_N: NDArray[np.int64], linear: Collaborator, strength: float
) -> NDArray[np.float64]:
    """Weights and bias of every label, [C, I + 1]."""
    num_inputs = inputs_NI.shape[1]
    weight_CP = np.zeros((linear.num_labels, num_inputs + 1))
    weight_CP[:, -1] = _NEVER
    present = np.unique(labels_N)
    if len(present) == 1:
        weight_CP[present, -1] = 0.0
        return weight_CP
    length = math.sqrt(num_inputs - linear.num_words)  # of the embeddings after the normaliser
    regression = LogisticRegression(C=strength, tol=1e-5, max_iter=1000).fit(
        inputs_NI.astype(np.float64) / length, labels_N
    )
    own_CP = np.concatenate([regression.coef_ / length, regression.intercept_[:, None]], 1)
    weight_CP[present] = own_CP if len(own_CP) > 1 else [-own_CP[0] / 2, own_CP[0] / 2]  # two labels give one row
    return weight_CP


def _join(
    parts: list[tuple[NDArray[np.float32], NDArray[np.int64]]],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.concatenate([inputs for inputs, _ in parts]), np.concatenate([labels for _, labels in parts])


def _thin(inputs_NI: NDArray[np.float32], labels_N: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """At most `MAX_ROWS` rows in the order of a hash of their inputs, which is the same for any number of ranks."""
    hashes = np.array([zlib.crc32(row.tobytes()) for row in inputs_NI])
    order = np.lexsort((labels_N, hashes))[:MAX_ROWS]
    return inputs_NI[order], labels_N[order]
