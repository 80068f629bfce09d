"""The small model of a table: ridge regression on vectors in closed form, and a judge of its answers.

Scores of bought units leave their own label out, so that the judge sees what it will see of units that were not bought.
Shapes: U units, B of them bought, n some of them, D coordinates, P features, C labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax

from kcm.cascade.curves import Signal, SignalCurves, distinct
from kcm.kan.random_relu import random_directions
from kcm.labelling.purchases import Guess, Units
from kcm.labelling.regression import Array, Regression

SIGNALS = (
    Signal("probability", 1, "log-odds of the likeliest label"),
    Signal("margin", 1, "distance between the two highest scores"),
    Signal("entropy", 1, "negative entropy of the probabilities"),
    Signal("leverage", -1, "how unlike the bought rows the input is"),
    Signal("neighbours", 1, "share of the nearest bought rows with this label, weighted by likeness"),
    Signal("nearest row", 1, "likeness of the nearest bought row with this label"),
    Signal("rival row", -1, "likeness of the nearest bought row with another label"),
    Signal("label count", 1, "logarithm of the bought rows with this label"),
    Signal("label accuracy", 1, "how often this label was right on other bought rows"),
    Signal("cheaper model", 1, "whether the cheaper model gives the same label"),
)
STRENGTH = 10.0  # of the penalty on curves
_BY_NAME = {signal.name: signal for signal in SIGNALS}

Columns = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Judge:
    """log-odds(right) = constant + sum of curves over the signals that vary."""

    curves: SignalCurves

    @classmethod
    def fitted(cls, signals: Columns, right_B: NDArray[np.bool_]) -> Judge:
        """Fit P(right) to rows that were bought, by their signals [B] of known names."""
        names = distinct(signals)
        values_BF = np.stack([signals[name] for name in names], 1)
        chosen = [_BY_NAME[name] for name in names]
        return cls(SignalCurves.fitted(chosen, values_BF, right_B.astype(np.float64), STRENGTH))

    def wrong(self, signals: Columns) -> NDArray[np.float64]:
        """P(wrong) of units with these signals, [U]."""
        values_UF = np.stack([signals[signal.name] for signal in self.curves.signals], 1)
        return np.asarray(expit(-self.curves.score(values_UF)))


WIDTH = 1024  # squares of random mixtures
MAX_TAUGHT = 16_384  # bought units that are learned from: more hardly help, and memory and time grow with them
_NEIGHBOURS, _CHUNK = 10, 4096
_MAX_PAIRS = 2**24  # of a unit and a bought one, whose likenesses are in memory together
_CLAMP = 4.0
_PRIOR_ROWS = 10  # with which the accuracy of a label is drawn to that of all
_LIMIT = 30.0


class VectorSide:
    """A small model over unit vectors [U, D].

    `hint_U` are the answers of a cheaper model, as codes of labels; regression and judge read them.
    """

    def __init__(self, vectors_UD: NDArray[np.float32], hint_U: Units | None = None) -> None:
        self._vectors, self._hint = vectors_UD, hint_U
        self._hints = None if hint_U is None else np.unique(hint_U)
        self._mix_MD = random_directions(WIDTH, vectors_UD.shape[1], torch.Generator().manual_seed(0)).numpy()
        self.judge: Judge | None = None  # the last one
        self.wrong_B: NDArray[np.float64] = np.empty(0)  # what the judge says of the bought units, left out

    def fit(self, units: Units, labels: Units) -> Guess:
        """Fit regression and judge again to the bought units, or to a random `MAX_TAUGHT` of them."""
        if len(units) > MAX_TAUGHT:
            chosen = np.sort(np.random.default_rng(0).permutation(len(units))[:MAX_TAUGHT])
            units, labels = units[chosen], labels[chosen]
        names, label_B = np.unique(labels, return_inverse=True)
        if len(names) < 2:  # nothing to tell apart yet
            only = np.full(len(self._vectors), names[0] if len(names) else 0)
            return Guess(only, np.full(len(only), 1 / (len(units) + 2)))
        fit = Regression.fitted(self._features(units), np.eye(len(names))[label_B])
        known = _Known(self._vectors[units], label_B, _temperature(fit.left_out_BC, label_B))
        answer_B = fit.left_out_BC.argmax(1)
        right_B = answer_B == label_B
        places_B = np.arange(len(units))
        blocks = [
            known.signals(self._vectors[units[part]], fit.left_out_BC[part], fit.leverage_B[part], places_B[part])
            for part in _parts(len(units), len(units))
        ]
        signals_B = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
        signals_B["label accuracy"] = _rates_without_own(answer_B, right_B)
        if self._hint is not None:
            signals_B["cheaper model"] = (names[answer_B] == self._hint[units]).astype(np.float64)
        self.judge = Judge.fitted(signals_B, right_B)
        self.wrong_B = self.judge.wrong(signals_B)
        rate_C = _rates(answer_B, right_B, len(names))
        answer_U, wrong_U = np.empty(len(self._vectors), np.int64), np.empty(len(self._vectors))
        for part in _parts(len(self._vectors), len(units)):
            score_nC, leverage_n = fit.scores(self._features(part))
            signals_n = known.signals(self._vectors[part], score_nC, leverage_n)
            answer_n = score_nC.argmax(1)
            signals_n["label accuracy"] = rate_C[answer_n]
            if self._hint is not None:
                signals_n["cheaper model"] = (names[answer_n] == self._hint[part]).astype(np.float64)
            answer_U[part], wrong_U[part] = names[answer_n], self.judge.wrong(signals_n)
        return Guess(answer_U, wrong_U)

    def _features(self, part: Units | slice) -> Array:
        """The vectors and squares of random mixtures, as `RandomQuadratic` has them, then the hints, [n, P]."""
        z_nD = self._vectors[part] * np.float32(np.sqrt(self._vectors.shape[1]))
        squares_nM = np.clip(z_nD @ self._mix_MD.T, -_CLAMP, _CLAMP) ** 2
        parts = [np.float32(np.sqrt(WIDTH / z_nD.shape[1])) * z_nD, squares_nM]
        if self._hint is not None and self._hints is not None:
            parts.append(np.float32(np.sqrt(WIDTH)) * (self._hint[part, None] == self._hints))
        return np.concatenate(parts, 1).astype(np.float64) * 0.5


def _parts(num_units: int, num_bought: int) -> Iterator[slice]:
    """Slices of the units that bound the memory for their likenesses to the bought ones."""
    size = min(_CHUNK, max(1, _MAX_PAIRS // num_bought))
    return (slice(start, start + size) for start in range(0, num_units, size))


class _Known:
    """The bought units, and the signals that follow from them for any unit."""

    def __init__(self, vectors_BD: NDArray[np.float32], label_B: Units, temperature: float) -> None:
        self._vectors, self._label, self._temperature = vectors_BD, label_B, temperature
        self._count_C = np.bincount(label_B)

    def signals(
        self, vectors_nD: NDArray[np.float32], score_nC: Array, leverage_n: Array, own: Units | None = None
    ) -> dict[str, Array]:
        """The signals of `kcm.labelling.text` but the accuracy of labels; `own` are places among the bought units."""
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
