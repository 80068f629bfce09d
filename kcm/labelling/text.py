"""The small model of a table: ridge regression on vectors in closed form, and a judge of its answers.

Scores of bought units leave their own label out, so that the judge sees what it will see of units that were not bought.
Shapes: U units, B of them bought, n some of them, D coordinates, P features, C labels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from kcm.kan.random_relu import random_directions
from kcm.labelling.judge import Judge
from kcm.labelling.regression import Array, Regression
from kcm.labelling.rounds import Guess, Units

WIDTH = 1024  # squares of random mixtures
_NEIGHBOURS, _CHUNK = 10, 4096
_CLAMP = 4.0
_PRIOR_ROWS = 10  # with which the accuracy of a label is drawn to that of all
_LIMIT = 30.0


class VectorSide:
    """A small model over unit vectors [U, D]; `hints_UH` are further features, such as a cheaper model's answers."""

    def __init__(
        self,
        vectors_UD: NDArray[np.float32],
        hints_UH: NDArray[np.float32] | None = None,
        seed: int = 0,
    ) -> None:
        self._vectors = vectors_UD
        self._features = quadratic_features(vectors_UD, WIDTH, seed)
        if hints_UH is not None:
            self._features = np.concatenate([self._features, hints_UH], 1)
        self.judge: Judge | None = None  # the last one

    def fit(self, units: Units, labels: Units) -> Guess:
        """Fit regression and judge anew to all that was bought."""
        names, label_B = np.unique(labels, return_inverse=True)
        if len(names) < 2:  # nothing to tell apart yet
            only = np.full(len(self._vectors), names[0] if len(names) else 0)
            return Guess(only, np.full(len(only), 1 / (len(units) + 2)), 1.0)
        fit = Regression.fitted(self._features[units].astype(np.float64), np.eye(len(names))[label_B])
        known = _Known(self._vectors[units], label_B, _temperature(fit.left_out_BC, label_B))
        answer_B = fit.left_out_BC.argmax(1)
        right_B = answer_B == label_B
        signals_B = known.signals(self._vectors[units], fit.left_out_BC, fit.leverage_B, own=np.arange(len(units)))
        signals_B["label accuracy"] = _rates_without_own(answer_B, right_B)
        self.judge = Judge.fitted(signals_B, right_B)
        rate_C = _rates(answer_B, right_B, len(names))
        answer_U, wrong_U = np.empty(len(self._vectors), np.int64), np.empty(len(self._vectors))
        for start in range(0, len(self._vectors), _CHUNK):
            part = slice(start, start + _CHUNK)
            score_nC, leverage_n = fit.scores(self._features[part].astype(np.float64))
            signals_n = known.signals(self._vectors[part], score_nC, leverage_n)
            answer_n = score_nC.argmax(1)
            signals_n["label accuracy"] = rate_C[answer_n]
            answer_U[part], wrong_U[part] = names[answer_n], self.judge.wrong(signals_n)
        return Guess(answer_U, wrong_U, float(1 / np.sqrt(2 + (~right_B).sum() / 2)))


class _Known:
    """What is known of the bought units, and the signals that follow for any unit."""

    def __init__(self, vectors_BD: NDArray[np.float32], label_B: Units, temperature: float) -> None:
        self._vectors, self._label, self._temperature = vectors_BD, label_B, temperature
        self._count_C = np.bincount(label_B)

    def signals(
        self, vectors_nD: NDArray[np.float32], score_nC: Array, leverage_n: Array, own: Units | None = None
    ) -> dict[str, Array]:
        """The signals of `kcm.labelling.judge` but the accuracy of labels; `own` are places among the bought units."""
        rows, answer_n = np.arange(len(score_nC)), score_nC.argmax(1)
        log_p_nC = log_softmax(score_nC / self._temperature, axis=1)
        top_n = log_p_nC[rows, answer_n]
        second_n, first_n = np.partition(score_nC, -2, axis=1)[:, -2:].T
        count_n = self._count_C[answer_n] - (0 if own is None else self._label[own] == answer_n)
        return {
            "probability": np.clip(top_n - np.log1p(-np.minimum(np.exp(top_n), 1 - 1e-12)), -_LIMIT, _LIMIT),
            "margin": first_n - second_n,
            "entropy": (np.exp(log_p_nC) * log_p_nC).sum(1),
            "leverage": np.log(np.maximum(leverage_n, 1e-12)),
            "label count": np.log1p(count_n.astype(np.float64)),
            **self._neighbours(vectors_nD, answer_n, own),
        }

    def _neighbours(self, vectors_nD: NDArray[np.float32], answer_n: Units, own: Units | None) -> dict[str, Array]:
        """How the nearest bought units agree with the answers."""
        like_nB = vectors_nD @ self._vectors.T
        if own is not None:
            like_nB[np.arange(len(own)), own] = -1.0
        same_nB = self._label == answer_n[:, None]
        count = min(_NEIGHBOURS, like_nB.shape[1] - 1)
        nearest_nK = np.argpartition(-like_nB, count - 1, axis=1)[:, :count]
        like_nK = np.take_along_axis(like_nB, nearest_nK, 1).astype(np.float64)
        weight_nK = np.exp(10 * (like_nK - like_nK.max(1, keepdims=True)))
        agree_nK = np.take_along_axis(same_nB, nearest_nK, 1)
        return {
            "neighbours": (weight_nK * agree_nK).sum(1) / weight_nK.sum(1),
            "nearest row": np.where(same_nB, like_nB, -1.0).max(1).astype(np.float64),
            "rival row": np.where(same_nB, -1.0, like_nB).max(1).astype(np.float64),
        }


def quadratic_features(vectors_UD: NDArray[np.float32], width: int, seed: int) -> NDArray[np.float32]:
    """The vectors and squares of random mixtures, [U, D + width], as in `kcm.kan.random_relu.RandomQuadratic`."""
    dim = vectors_UD.shape[1]
    z_UD = vectors_UD * np.float32(np.sqrt(dim))
    mix = random_directions(width, dim, torch.Generator().manual_seed(seed)).numpy()
    squares = np.clip(z_UD @ mix.T, -_CLAMP, _CLAMP) ** 2
    return np.concatenate([np.float32(np.sqrt(width / dim)) * z_UD, squares], 1) * np.float32(0.5)


def _temperature(score_BC: Array, label_B: Units) -> float:
    """The temperature of the softmax with the lowest log loss."""
    rows = np.arange(len(score_BC))

    def loss(log_t: float) -> float:
        return -float(log_softmax(score_BC / np.exp(log_t), axis=1)[rows, label_B].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-6, 2), method="bounded", options={"xatol": 0.02}).x))


def _rates(answer_B: Units, right_B: NDArray[np.bool_], num_labels: int) -> Array:
    """How often each label was right [C], drawn to the rate of all."""
    count_C = np.bincount(answer_B, minlength=num_labels)
    right_C = np.bincount(answer_B, right_B, minlength=num_labels)
    return np.asarray((right_C + _PRIOR_ROWS * right_B.mean()) / (count_C + _PRIOR_ROWS))


def _rates_without_own(answer_B: Units, right_B: NDArray[np.bool_]) -> Array:
    """As `_rates`, for every row from the others [B]."""
    count_B = np.bincount(answer_B)[answer_B] - 1
    right = np.bincount(answer_B, right_B)[answer_B] - right_B
    return np.asarray((right + _PRIOR_ROWS * right_B.mean()) / (count_B + _PRIOR_ROWS))
