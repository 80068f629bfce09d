"""Logistic regression on the features: the control of every run, fitted to the rows of all tasks so far.

Shapes: N rows, I inputs of the network, P = I + 1 with a one for the bias, C labels, K labels that have rows.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor

from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.distill import DistillConfig
from kcm.learners.analytic import write_solutions
from kcm.learners.base import Batch, LearnedTask, Learner
from kcm.learners.ranks import Ranks
from kcm.metrics.intervals import Units

INVERSE_STRENGTH = 10.0  # for inputs of unit length
MAX_ROWS = 50_000  # rows to fit on: those whose features have the smallest hashes
_NUM_FOLDS = 10
_NEVER = -30.0  # logit of a label without rows


class Logistic(Learner):
    """scikit-learn's default logistic regression, without its import of half a second; judge and small are the same.

    For every task it streams the rows of all tasks so far, and holds the rows of the task that is being streamed.
    """

    closed_form: ClassVar[bool] = True

    def __init__(self) -> None:
        self._rows: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []

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
            inputs_NI, labels_N = _thin(*_join(rows))
            weight_CP = torch.from_numpy(_Rows.of(inputs_NI, learned.collaborator).fit(labels_N))
            return [(weight_CP, weight_CP.new_zeros(len(weight_CP)))]

        write_solutions(learned.collaborator, learned.ranks, fitted)

    def state_dict(self) -> dict[str, Any]:
        """The rows held for the task that is being streamed."""
        if not self._rows:
            return {}
        inputs_NI, labels_N = _join(self._rows)
        return {"inputs": torch.from_numpy(inputs_NI), "labels": torch.from_numpy(labels_N)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Hold these rows."""
        self._rows = [(state["inputs"].numpy(), state["labels"].numpy())] if state else []

    def left_out(
        self, collaborator: Collaborator, rows: Batch, units: Units, distill: DistillConfig
    ) -> tuple[Tensor, Tensor]:
        """Ten folds of whole units; each fold is scored by a regression on the other nine."""
        with torch.no_grad():
            inputs = _Rows.of(collaborator.inputs(rows.features).float().numpy(), collaborator)
        labels_N = rows.labels.numpy()
        fold_U = np.random.default_rng(0).permutation(units.count) % _NUM_FOLDS
        fold_N = fold_U[units.code] if units.grouped else fold_U
        logits_NC = np.full((len(labels_N), collaborator.num_labels), _NEVER)
        for fold in np.unique(fold_N):
            out_N = fold_N == fold
            if out_N.all():  # a single unit
                break
            weight_CP = inputs.fit(labels_N, ~out_N)
            logits_NC[out_N] = inputs.inputs_NP[out_N] @ weight_CP.T
        left_out_NC = torch.from_numpy(logits_NC)
        return left_out_NC, left_out_NC


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows to fit, also in coordinates z = inverse x in which the loss is about equally curved in every direction.

    The weights of z are V, and W = V inverse. So L-BFGS takes half as many steps.
    """

    inputs_NP: NDArray[np.float64]
    length: float  # of the embeddings after the normaliser; the penalty is on weights of inputs of unit length
    inverse_PP: NDArray[np.float64]
    z_NP: NDArray[np.float64]
    num_labels: int

    @classmethod
    def of(cls, inputs_NI: NDArray[np.float32], linear: Collaborator) -> _Rows:
        """The rows and their coordinates."""
        length = math.sqrt(inputs_NI.shape[1] - linear.num_words)
        inputs_NP = np.pad(inputs_NI.astype(np.float64), ((0, 0), (0, 1)), constant_values=1.0)
        scale_P = np.append(np.full(inputs_NI.shape[1], 1 / length), 1.0)
        unit_NP = inputs_NP * scale_P
        # With K labels, a row's probabilities of about 1 / K curve the loss by x x^T / K at most, surer ones by less.
        curvature_PP = unit_NP.T @ unit_NP / (10 * linear.num_labels) + np.eye(len(scale_P)) / INVERSE_STRENGTH
        factor_PP = cholesky(curvature_PP / len(unit_NP), lower=True)
        inverse_PP = solve_triangular(factor_PP, np.diag(scale_P), lower=True)
        return cls(inputs_NP, length, inverse_PP, inputs_NP @ inverse_PP.T, linear.num_labels)

    def fit(self, labels_N: NDArray[np.int64], fitted_N: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Weights and bias of every label, [C, P], from the rows of `fitted_N`, or from all."""
        z_NP, labels_N = (self.z_NP, labels_N) if fitted_N is None else (self.z_NP[fitted_N], labels_N[fitted_N])
        present, label_N = np.unique(labels_N, return_inverse=True)
        weight_CP = np.zeros((self.num_labels, z_NP.shape[1]))
        weight_CP[:, -1] = _NEVER
        if len(present) == 1:
            weight_CP[present, -1] = 0.0
            return weight_CP
        is_label_NK = np.eye(len(present), dtype=bool)[label_N]
        penalised_PP = self.inverse_PP[:, :-1] * self.length
        # scikit-learn penalises the one difference of two labels' weights, whose square is twice the sum of theirs.
        strength = (2 if len(present) == 2 else 1) / (INVERSE_STRENGTH * len(z_NP))
        penalty_PP = strength * penalised_PP @ penalised_PP.T

        def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            """The mean loss of a row with the penalty at V [K, P], which lies `flat`; and the gradient."""
            v_KP = flat.reshape(len(present), -1)
            log_NK, penalty_KP = log_softmax(z_NP @ v_KP.T, axis=1), v_KP @ penalty_PP
            slope_KP = (np.exp(log_NK) - is_label_NK).T @ z_NP / len(z_NP) + penalty_KP
            return float((penalty_KP * v_KP).sum() / 2 - log_NK[is_label_NK].mean()), slope_KP.ravel()

        start = np.zeros(len(present) * z_NP.shape[1])
        solved = minimize(loss, start, jac=True, method="L-BFGS-B", options={"gtol": 3e-5, "maxiter": 1000})
        weight_CP[present] = solved.x.reshape(len(present), -1) @ self.inverse_PP
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
