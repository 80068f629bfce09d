"""The gate `signals`: a small KAN over a few numbers that measure how sure an answer is; all its curves can be read.

The direction of every number is known beforehand. An answer is surer if the judge is surer, if class means and
remembered rows are near and agree, and if answers with its label were right. It is less sure if the large model is
right on that label. The curves are monotone in these directions, so a person can check them. The gate score is

    g(x) = -log-odds that a large call gains, P(small wrong, large right) = constant + sum of curves

fitted on validate rows in folds of whole units, because a search needs scores of rows that were left out. The task of
a row is not an input: a request need not carry its task, and a certificate must hold for requests without one. For
tasks, use thresholds per task. Shapes: N rows, F signals, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kcm.cascade.curves import STRENGTHS, Signal, SignalCurves, distinct, log_loss, unit_folds
from kcm.cascade.gate_kinds import SCORES, FittedHead, GateForm, GateInputs, GateRows
from kcm.cascade.outcome_rows import ColumnTable
from kcm.cascade.reference import Reference
from kcm.errors import DataError
from kcm.metrics.intervals import Units

MAX_ROWS = 10_000  # rows to fit on; more would cost time and add little
_LIMIT = 30.0  # clamp on log-odds
_PRIOR_ROWS = 10.0  # shrinkage of a label's accuracy towards the accuracy over all labels, in rows

SIGNALS = (
    Signal("confidence", 1, "log-odds of the judge's likeliest label"),
    Signal("margin", 1, "distance between the judge's two largest logits"),
    Signal("entropy", 1, "negative entropy of the judge's probabilities"),
    Signal("agreement", 1, "log-probability that the judge gives to the small model's answer"),
    Signal("small confidence", 1, "log-odds of the small model's answer"),
    Signal("nearest mean", -1, "distance to the nearest class mean"),
    Signal("mean gap", 1, "how much nearer the mean of the answer's class is than any other"),
    Signal("neighbours", 1, "share of the nearest remembered rows that have the answer's label"),
    Signal("nearest row", -1, "distance to the nearest remembered row"),
    Signal("small accuracy", 1, "how often the small model is right with this answer, on validate rows"),
    Signal("large accuracy", -1, "how often the large model is right when the small one gives this answer"),
)
_RATES = ("small accuracy", "large accuracy")
_OWN = ("signal_F", "low_F", "high_F", "rates_2C", "curves", "constant")


class Signals(GateForm):
    """The gate `signals`."""

    def restored(self, tensors: Mapping[str, Tensor]) -> SignalsHead:
        """The head with these tensors."""
        return SignalsHead.of(tensors)

    def fit(self, rows: GateRows) -> FittedHead:
        """A head, and the left-out scores of its rows by folds. Raises DataError for fewer than two units."""
        num_rows = len(rows.small_correct)
        units = Units(rows.group, num_rows)
        if units.count < 2:
            raise DataError(f"the gate needs at least two rows or groups, got {units.count}", where="gate")
        positions = units.sample(num_rows, MAX_ROWS, rows.seed)
        signal_rows = SignalRows.of(rows, positions)
        left_out = {strength: signal_rows.left_out(strength) for strength in STRENGTHS}
        heads = {strength: signal_rows.head(strength, rows.reference) for strength in STRENGTHS}
        # All folds use the constant of the whole fit: a constant per fold would order folds by their other rows.
        scores = {strength: heads[strength].curves.constant + left_out[strength] for strength in STRENGTHS}
        best = min(scores, key=lambda strength: log_loss(scores[strength], signal_rows.nothing_gained))
        score_N = heads[best].score(rows.inputs)
        score_N[positions] = scores[best]
        return FittedHead(heads[best], score_N)


@dataclass(frozen=True, eq=False)
class SignalsHead:
    """The fitted curves and their inputs.

    `rates_2C` are the accuracies of the small and of the large model on rows with a given small label; `reference` is
    what the small side remembers of its training rows.
    """

    curves: SignalCurves
    rates_2C: NDArray[np.float64]
    reference: Reference

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> SignalsHead:
        """The head from its tensors. Raises RuntimeError for tensors of another gate."""
        names = (*_OWN, *(field.name for field in fields(Reference)))
        if absent_names := [name for name in names if name not in tensors]:
            raise RuntimeError(f"the gate 'signals' lacks {', '.join(absent_names)}")
        reference = Reference(**{field.name: tensors[field.name] for field in fields(Reference)})
        return cls(SignalCurves.of(tensors, SIGNALS), tensors["rates_2C"].numpy(), reference)

    def tensors(self) -> dict[str, Tensor]:
        """All fitted numbers."""
        tensors = self.curves.tensors(SIGNALS) | {"rates_2C": torch.from_numpy(self.rates_2C)}
        return tensors | {field.name: getattr(self.reference, field.name) for field in fields(Reference)}

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The inputs of the curves."""
        return self.curves.signals

    def score(self, inputs: GateInputs) -> NDArray[np.float64]:
        """Log-odds that a large call gains nothing, [N]. Raises DataError if an input of the curves is missing."""
        return self.curves.score(self.values(inputs))

    @property
    def rates_added_C(self) -> NDArray[np.float64]:
        """What the two accuracies of a label add to the score of every row with that small label, [C]."""
        position_R = [signal.name in _RATES for signal in self.signals]
        values_CF = np.zeros((self.rates_2C.shape[1], len(self.signals)))
        values_CF[:, position_R] = self.rates_2C.T
        return np.asarray(self.curves.contributions(values_CF)[:, position_R].sum(1))

    def values(self, inputs: GateInputs) -> NDArray[np.float64]:
        """The signals of every row, [N, F]."""
        columns = known_signals(inputs, self.reference)
        if absent_names := [signal.name for signal in self.signals if signal.name not in (*columns, *_RATES)]:
            raise DataError(f"the gate reads {', '.join(absent_names)}, but there are no features", where="gate")
        known_NF = np.stack([columns[signal.name] for signal in self.signals if signal.name not in _RATES], 1)
        return with_rates(known_NF, answers(inputs), self.rates_2C)


@dataclass(frozen=True, eq=False, kw_only=True)
class SignalRows(ColumnTable):
    """The rows on which a head is fitted; `names` are the names of the columns of `known_NF`."""

    known_NF: NDArray[np.float64]
    answer_N: NDArray[np.int64]
    small_correct: NDArray[np.bool_]
    large_correct: NDArray[np.bool_]
    fold_N: NDArray[np.int64]
    names: tuple[str, ...]
    num_labels: int

    @classmethod
    def of(cls, rows: GateRows, positions: NDArray[np.intp]) -> SignalRows:
        """The rows at `positions`, in folds of whole units."""
        group = None if rows.group is None else rows.group[positions]
        columns = {name: column[positions] for name, column in known_signals(rows.inputs, rows.reference).items()}
        names = distinct(columns)
        return cls(
            known_NF=np.stack([columns[name] for name in names], 1),
            answer_N=answers(rows.inputs)[positions],
            small_correct=rows.small_correct[positions],
            large_correct=rows.large_correct[positions],
            fold_N=unit_folds(Units(group, len(positions)), rows.seed),
            names=names,
            num_labels=rows.inputs.small_logits_NC.shape[1],
        )

    @property
    def nothing_gained(self) -> NDArray[np.float64]:
        """The target: 1 unless the small model is wrong and the large one right, [N]."""
        return np.asarray(self.small_correct | ~self.large_correct, dtype=np.float64)

    @property
    def values_NF(self) -> NDArray[np.float64]:
        """All signals. A row's accuracies by label come from the other folds, as for rows outside this table."""
        rates_N2 = np.empty((len(self.answer_N), 2))
        for fold in np.unique(self.fold_N):
            out_N = self.fold_N == fold
            rates_N2[out_N] = self.select(~out_N).rates_2C[:, self.answer_N[out_N]].T
        return np.concatenate([self.known_NF, rates_N2], 1)

    @property
    def rates_2C(self) -> NDArray[np.float64]:
        """Accuracy of each side on rows with a given small label, shrunk towards its accuracy on all rows."""
        count_C = np.bincount(self.answer_N, minlength=self.num_labels)
        rates = []
        for right_N in (self.small_correct, self.large_correct):
            right_C = np.bincount(self.answer_N, right_N, minlength=self.num_labels)
            overall = right_N.mean() if len(right_N) else 0.5
            rates.append((right_C + _PRIOR_ROWS * overall) / (count_C + _PRIOR_ROWS))
        return np.stack(rates)

    def head(self, strength: float, reference: Reference | None = None) -> SignalsHead:
        """Curves fitted to all rows, with the other inputs of their signals."""
        by_name = {signal.name: signal for signal in SIGNALS}
        signals = [by_name[name] for name in (*self.names, *_RATES)]
        curves = SignalCurves.fitted(signals, self.values_NF, self.nothing_gained, strength)
        return SignalsHead(curves, self.rates_2C, reference or Reference.nothing())

    def left_out(self, strength: float) -> NDArray[np.float64]:
        """The sum of curves that were fitted without the row's fold, [N]."""
        sum_N = np.empty(len(self.answer_N))
        for fold in np.unique(self.fold_N):
            out_N = self.fold_N == fold
            head = self.select(~out_N).head(strength)
            values_NF = with_rates(self.known_NF[out_N], self.answer_N[out_N], head.rates_2C)
            sum_N[out_N] = head.curves.contributions(values_NF).sum(1)
        return sum_N


def with_rates(
    known_NF: NDArray[np.float64], answer_N: NDArray[np.int64], rates_2C: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The known signals of rows plus the accuracies of their answers: all inputs of the curves."""
    return np.concatenate([known_NF, rates_2C[:, answer_N].T], 1)


def answers(inputs: GateInputs) -> NDArray[np.int64]:
    """The small model's answers, [N]."""
    return np.asarray(inputs.small_logits_NC.argmax(1))


def known_signals(inputs: GateInputs, reference: Reference) -> dict[str, NDArray[np.float64]]:
    """The signals that rows and reference define, by name, [N] each; without features, only those that need none."""
    judge_NC, small_NC, answer_N = inputs.judge_logits_NC, inputs.small_logits_NC, answers(inputs)
    rows_N = np.arange(len(answer_N))
    log_p_NC = judge_NC - np.logaddexp.reduce(judge_NC, axis=1, keepdims=True)
    columns = {name: _clip(SCORES[name](judge_NC)) for name in ("confidence", "margin", "entropy")}
    columns["agreement"] = _clip(log_p_NC[rows_N, answer_N])
    columns["small confidence"] = _clip(SCORES["confidence"](small_NC))
    if inputs.features_ND is None:
        return columns
    if (distance_NC := reference.distances(inputs.features_ND)) is not None:
        # A class that cannot be the answer, such as one without rows, is as far away as the farthest other class.
        distance_NC = np.where(np.isfinite(judge_NC), distance_NC, np.inf)
        farthest_N1 = np.where(np.isfinite(distance_NC), distance_NC, 0).max(1, keepdims=True)
        near_NC = np.minimum(distance_NC, farthest_N1)
        columns["nearest mean"] = near_NC.min(1)
        others_NC = np.where(np.arange(near_NC.shape[1]) == answer_N[:, None], farthest_N1, near_NC)
        columns["mean gap"] = others_NC.min(1) - near_NC[rows_N, answer_N]
    if (neighbours := reference.neighbours(inputs.features_ND)) is not None:
        cosine_NK, label_NK = neighbours
        columns["neighbours"] = (label_NK == answer_N[:, None]).mean(1)
        columns["nearest row"] = cosine_NK[:, 0]
    return columns


def _clip(score_N: NDArray[np.float64]) -> NDArray[np.float64]:
    return score_N.clip(-_LIMIT, _LIMIT)
