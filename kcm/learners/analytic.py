"""Analytic learning: networks linear in their coefficients, solved for all rows so far without storing any row.

A KAN of one layer on frozen features with a fixed grid is linear in its coefficients. The normal equations of all tasks
add up, so the ridge regression after task i is the ridge regression on tasks 1 to i together. That nothing is forgotten
is a theorem (ACIL, arXiv 2205.14922; RanPAC, arXiv 2307.02251). Order, chunks and ranks do not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kcm.closed_form.design import Design, design_of
from kcm.closed_form.discriminant import residual_metric
from kcm.closed_form.gcv import MIN_STRENGTH, GcvRidge, RidgeSums, ridge_by_gcv
from kcm.closed_form.left_out import class_mean_scores, left_out_of_sums, without_own_class
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.errors import ConfigError
from kcm.learners.answered import AnsweredRows, answered_rows, choosing
from kcm.learners.base import Batch, LearnedTask, Learner, LearnerConfig, joined
from kcm.learners.ranks import Ranks
from kcm.metrics.intervals import Units

TARGET = 10.0  # at a row's label: softmax is then a sensible probability even before a temperature is fitted
MAX_INPUTS = 30_000  # 20 GiB
MAX_RESIDUALS = 2_000  # largest number of labels for which the metric of the residuals is stored: 32 MB
_ROWS_AT_ONCE = 1024  # rows whose expanded inputs are in memory together


class AnalyticConfig(LearnerConfig):
    """Closed-form ridge regression; needs `network.hidden: []`.

    It uses `large_weight` and `large_confidence` of the section `distill`, and nothing of `train`. A row without
    a label is trained on the large model's answer, if the answer is surer than `large_confidence`. The weight of such
    rows, possibly 0, is the one with which most labelled rows are right when they are left out.

    With mixing, one interval of degree 1 is best, and more projections are worth more than more splines:
    `network: {hidden: [], mixing: 2304, grid_size: 1, spline_order: 1, grid_range: [-1.0, 1.0]}`.
    Memory is about 24 P^2 bytes with P = I (grid_size + spline_order) + 1 for I inputs of the network; a task takes
    about 4 P^3 operations.

    `network: {hidden: [], basis: pspline, mixing: 512, grid_size: 4, spline_order: 2}` learns penalised curves over
    mixtures of the first task's rows. It has P = 4 mixing + I + 1 and equals joint training given the first task, as
    does `network.scaling: first_task`, for columns in units of their own.
    `basis: quadratic` has P = mixing + I + 1; `basis: relu`, RanPAC's own, has P = mixing.
    """

    gives_left_out: ClassVar[bool] = True

    strength: float | None = Field(
        None,
        ge=MIN_STRENGTH,
        description="Ridge strength over the mean eigenvalue of the inputs; null: chosen by cross-validation.",
    )
    class_balance: float = Field(
        0.25,
        ge=0,
        le=1,
        description="How far the outputs of classes with few rows are raised; 0: not at all, 0.5: for a long tail.",
    )
    equal_classes: float = Field(
        0.0,
        ge=0,
        le=1,
        description="How equally classes count, for a long tail; 0: by their number of rows, 1: all the same.",
    )
    logit_adjustment: float = Field(
        0.0, ge=0, description="Subtracts this much times the log of a class's share of the rows from its logit."
    )
    chunk_size: int = Field(8192, ge=1, description="Rows per step, over all workers; best 1,024 or more per worker.")

    def build(self, seed: int) -> Learner:
        """A fresh learner that has seen nothing."""
        return Analytic(self)

    def check_network(self, network: NetworkConfig) -> None:
        """Raise ConfigError for a network that is not linear."""
        require_linear(network)


class Analytic(Learner):
    """Ridge regression: the judge fits the labels, the small model labels mixed with the large model's answers.

    `strength` is lambda / (tr(G) / P); if null, generalised cross-validation chooses it after every task, by half of
    the inputs if they are random units.
    `class_balance` b multiplies the outputs of class c by (mean n / n_c)^b, with n_c its train rows so far, because
    shrinkage hits classes with few rows hardest. `logit_adjustment` t adds t log(mean n / n_c) to them (arXiv
    2007.07314, equation 9, in logits whose target is 10). Before both, `equal_classes` e makes a class count for
    n_c^(1 - e) rows, both for its own mean and for the covariance that all classes share. If all classes have equally
    many rows, none of the three changes anything.
    """

    closed_form: ClassVar[bool] = True
    learns_answers: ClassVar[bool] = True  # for rows without a label

    def __init__(self, config: AnalyticConfig) -> None:
        self.config, self.chunk_size = config, config.chunk_size
        self.sums: RidgeSums | None = None  # of labelled rows
        self.answered = AnsweredRows()
        self.exchangeable = False  # whether half of the inputs may choose the strength
        self.chosen: list[float] = []  # the strengths chosen for the regressions on these sums; empty before
        self.residuals: dict[str, Tensor] = {}  # the metric that measures how novel the judge's outputs are

    def require(self, collaborator: Collaborator) -> None:
        """Raise ConfigError for networks without a closed form."""
        require_linear(collaborator.network)
        num_inputs = max(design.num_inputs for design in designs(collaborator))
        if num_inputs > MAX_INPUTS:
            raise ConfigError(
                f"a closed form of {num_inputs:,} inputs takes {24 * num_inputs**2 / 2**30:,.0f} GiB of memory",
                where="network",
                hint=f"Give rows fewer numbers, such as principal components: {MAX_INPUTS:,} inputs are the most",
            )

    @torch.no_grad()
    def absorb(self, collaborator: Collaborator, batch: Batch, distill: DistillConfig, ranks: Ranks) -> None:
        """Add the rows of `batch` with positive weight, together with the rows of all other ranks, to the sums."""
        part = self._sums_of(collaborator, batch.labelled(), distill, ranks)
        if self.sums is not None:
            part.add(self.sums)
        self.sums, self.chosen, self.residuals = part, [], {}
        self.exchangeable = designs(collaborator)[0].exchangeable
        if self.learns_answers:
            answered = answered_rows(batch, distill.large_confidence)
            if any(ranks.gather(len(answered) > 0)):
                self.answered.add(self._sums_of(collaborator, answered, distill, ranks))

    def _sums_of(self, collaborator: Collaborator, batch: Batch, distill: DistillConfig, ranks: Ranks) -> RidgeSums:
        """The sums over the rows of all ranks with positive weight."""
        rows = batch.weights.nonzero()[:, 0]
        num_models = self._num_models(collaborator, distill)
        num_targets, device = num_models * collaborator.num_labels, batch.features.device
        sums = RidgeSums(designs(collaborator)[0].num_inputs, num_targets, num_models, device)
        for chunk in torch.split(rows, _ROWS_AT_ONCE):
            sums.add_rows(*self._regression(collaborator, batch.take(chunk, batch.weights[chunk]), distill))
        ranks.sum_(sums.tensors())
        return sums

    @torch.no_grad()
    def left_out(
        self, collaborator: Collaborator, rows: Batch, units: Units, distill: DistillConfig
    ) -> tuple[Tensor, Tensor]:
        """Left-out logits from the sums and the leverage of every unit, without another solve.

        Class frequencies, and the counts of `equal_classes`, still include the rows of the unit.
        """
        assert self.sums is not None
        inputs_NP, targets_NK = self._regression(collaborator, rows, distill)
        strengths = self._strengths()
        left_out_NK = left_out_of_sums(self.counted_sums, strengths, inputs_NP, targets_NK, units)
        balance_C, offset_C = self._adjustment()
        by_model = [part * balance_C + offset_C for part in left_out_NK.chunk(len(strengths), 1)]
        return by_model[0], by_model[-1]

    @torch.no_grad()
    def without_own_class(self, judge_NC: Tensor, small_NC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor] | None:
        """Subtract the class's mean from the sums: see `without_own_class` of `kcm.closed_form.left_out`."""
        assert self.sums is not None
        balance_C, offset_C = self._adjustment()
        by_model = class_mean_scores(self.counted_sums, self._strengths())

        def without(logits_NC: Tensor, mean_scores_CC: Tensor) -> Tensor:
            scores_NC = (logits_NC.double() - offset_C) / balance_C
            return without_own_class(scores_NC, labels_N, mean_scores_CC, TARGET) * balance_C + offset_C

        return without(judge_NC, by_model[0]), without(small_NC, by_model[-1])

    def _num_models(self, collaborator: Collaborator, distill: DistillConfig) -> int:
        """2 if the small model has its own targets, 1 otherwise."""
        return 1 + (not collaborator.network.shared and distill.large_weight > 0)

    def _regression(self, collaborator: Collaborator, rows: Batch, distill: DistillConfig) -> tuple[Tensor, Tensor]:
        """Inputs [N, P] and targets [N, K] of the regression, in float64."""
        labels_NC = F.one_hot(rows.labels, collaborator.num_labels).double()
        targets = [labels_NC]
        if self._num_models(collaborator, distill) > 1:
            targets.append(mixed_targets(labels_NC, rows.large_probabilities.double(), distill))
        inputs_NM = collaborator.inputs(rows.features.double())
        return designs(collaborator)[0].inputs(inputs_NM), TARGET * torch.cat(targets, 1)

    def grow(self, collaborator: Collaborator) -> None:
        """Extend the sums to new labels, which no row has had so far."""
        if self.sums is not None:
            self.sums = self.sums.grown(collaborator.num_labels)
            self.answered.grow(collaborator.num_labels)
            missing = collaborator.num_labels - len(self.residuals.get("target_C", ()))
            self.residuals = {name: F.pad(part, (0, missing) * part.ndim) for name, part in self.residuals.items()}

    def fits(self) -> list[GcvRidge]:
        """The regression of the judge, and the regression of the small model if it has its own targets."""
        sums = self.counted_sums
        fits = ridge_by_gcv(sums, self.config.strength, exchangeable=self.exchangeable)
        self.chosen = [fit.strength for fit in fits]
        balance_C, offset_C = self._adjustment()
        if len(balance_C) <= MAX_RESIDUALS:
            metric_CC = residual_metric(sums, fits[0].weight_KP, TARGET) / torch.outer(balance_C, balance_C)
            seen_C = sums.totals_K[: len(balance_C)] > 0
            self.residuals = {"metric_CC": metric_CC, "target_C": TARGET * balance_C * seen_C, "offset_C": offset_C}
        return fits

    @property
    def counted_sums(self) -> RidgeSums:
        """The weighted sums of all rows: labels and answers, with classes weighted by `equal_classes`."""
        assert self.sums is not None  # every task has rows
        sums = self.answered.joined(self.sums)
        return sums.balanced(self.config.equal_classes) if self.config.equal_classes else sums

    def solutions(self) -> list[tuple[Tensor, Tensor]]:
        """Weights [C, P] on the inputs of the regression, and offset [C], for each of the `fits`."""
        balance_C, offset_C = self._adjustment()
        return [(balance_C[:, None] * fit.weight_KP, offset_C) for fit in self.fits()]

    def end_task(self, learned: LearnedTask) -> None:
        """Solve for all rows so far."""
        if self.answered.sums is not None:
            self._choose_weight(learned)
        self.solve(learned.collaborator, learned.ranks)

    def solve(self, collaborator: Collaborator, ranks: Ranks) -> None:
        """Write the solution into both networks."""
        write_solutions(collaborator, ranks, self.solutions)

    def _choose_weight(self, learned: LearnedTask) -> None:
        """Choose the weight of answers, by the task's labelled rows, each left out."""
        parts = [choosing(batch, learned.num_rows) for batch in learned.batches]

        def num_right() -> Tensor:
            self.chosen = []  # each weight gets its own strength
            right = learned.seen_C.new_zeros((), dtype=torch.float64)
            if parts:  # this rank may have none
                rows = joined(parts)
                judge_NC, _ = self.left_out(learned.collaborator, rows, Units(None, len(rows)), learned.distill)
                right += (judge_NC.argmax(1) == rows.labels).sum()
            learned.ranks.sum_([right])
            return right

        self.answered.choose(num_right)
        self.chosen = []

    def _strengths(self) -> list[float]:
        """The strengths of the regressions on these sums."""
        return self.chosen or [fit.strength for fit in self.fits()]

    def _adjustment(self) -> tuple[Tensor, Tensor]:
        """The factor and the offset of the outputs of every class, [C] each; 1 and 0 for unseen classes."""
        assert self.sums is not None
        judge_totals_C = self.answered.totals(self.sums).chunk(len(self.sums.squares_M))[0]
        seen_C = judge_totals_C > 0
        rarity_C = torch.where(seen_C, judge_totals_C[seen_C].mean() / judge_totals_C, 1.0)
        return rarity_C**self.config.class_balance, self.config.logit_adjustment * rarity_C.log()

    def state_dict(self) -> dict[str, Any]:
        """The sums, how strengths are chosen and which were, and the metric of the residuals."""
        if self.sums is None:
            return {}
        state = {"sums": self.sums.state_dict(), "chosen": self.chosen, "residuals": self.residuals}
        return state | {"answered": self.answered.state_dict(), "exchangeable": self.exchangeable}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`."""
        self.sums = RidgeSums.from_state(state["sums"]) if state else None
        self.chosen = list(state["chosen"]) if state else []
        self.residuals = dict(state.get("residuals", {}))
        self.answered.load_state_dict(state.get("answered", {}))
        self.exchangeable = state.get("exchangeable", False)


def require_linear(network: NetworkConfig) -> None:
    """Raise ConfigError for a network not linear in its coefficients, or a base."""
    requirements = {
        "hidden": (list(network.hidden), [], "the analytic learner solves for a single layer"),
        "base": (network.base, "none", "a closed form adds nothing to a base: it solves for all rows"),
    }
    for name, (setting, value, why) in requirements.items():
        if setting != value:
            raise ConfigError(
                f"network.{name} = {setting!r}, and {why}",
                where=f"network.{name}",
                hint=f"Set network.{name}: {value}",
            )


@torch.no_grad()
def write_solutions(
    collaborator: Collaborator, ranks: Ranks, solutions: Callable[[], list[tuple[Tensor, Tensor]]]
) -> None:
    """Write weights [C, P] and offset [C] into the networks; rank 0 computes them, the others receive them.

    `solutions` returns the judge's, and the small model's if they differ.
    """
    outputs = designs(collaborator)
    tensors = [tensor for design in outputs for tensor in design.written()]
    if ranks.rank == 0:
        weights_and_offsets = solutions()
        for position, design in enumerate(outputs):
            design.write(*weights_and_offsets[min(position, len(weights_and_offsets) - 1)])
    else:
        for tensor in tensors:
            tensor.zero_()
    ranks.sum_(tensors)


def designs(collaborator: Collaborator) -> list[Design]:
    """The design of each network of a collaborator, the judge's first; ConfigError for networks without a design."""
    networks = [collaborator.judge] if collaborator.network.shared else [collaborator.judge, collaborator.small]
    network_designs = [design for network in networks if (design := design_of(network))]
    if len(network_designs) < len(networks):
        raise ConfigError(
            f"networks of kind {collaborator.kind!r} are not linear in their weights",
            hint="Give a single layer (network.hidden: []) of kind 'kan', 'random_relu' or 'linear'",
        )
    return network_designs


def mixed_targets(labels_NC: Tensor, large_NC: Tensor, distill: DistillConfig) -> Tensor:
    """Targets of the small model, (1 - a) y + a p_l with a = w / (1 + w) and w the `large_weight`.

    The mixture is the target of CE(y) + w CE(p_l). It is used if the large model answers with the label and is surer
    than `large_confidence`. (A wrong teacher would be obeyed, because no judge can overrule it in a regression.)
    Otherwise the target is the label. The conditions depend on one row alone, so the order of rows does not matter. A
    large model that gave only a label adds nothing to the label and is ignored.
    """
    if large_NC.shape != labels_NC.shape:
        return labels_NC  # no large model was asked
    surest_N = large_NC.nan_to_num(0.0).amax(-1)
    agrees_N = large_NC.nan_to_num(0.0).argmax(-1) == labels_NC.argmax(-1)
    teaches_N1 = (large_NC.isfinite().all(-1) & agrees_N & (surest_N > distill.large_confidence))[:, None]
    share = distill.large_weight / (1 + distill.large_weight)
    return torch.where(teaches_N1, (1 - share) * labels_NC + share * large_NC, labels_NC)
