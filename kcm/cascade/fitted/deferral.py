"""The deferral head: a small KAN that estimates what a large call would gain, and what it would cost.

Confidence is not the best rule for deferring (arXiv 2307.02764): an input should be escalated iff
P(large right) - P(small right) > weight * cost. With d the left side and c the cost, the gate score is

    g = weight * c(x) - d(x)

The head is one KAN layer, linear in its coefficients. It is fitted in closed form by ridge regression, its strength
chosen by leave-one-out error, which has a closed form too; so do the out-of-fold estimates that a search has to use,
since a head looks better on the rows it was fitted on. Groups are left out whole.
Shapes: N rows, D features, C labels, P coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kcm.cascade.forms import FittedForm, FittedHead, GateInputs, GateRows
from kcm.cascade.scores import SCORES
from kcm.closed_form.left_out import ridge_left_out
from kcm.collaborator.normalizer import FrozenNormalizer, UnitNormalizer
from kcm.errors import DataError
from kcm.kan import KAN, KANLinear
from kcm.metrics.intervals import Units

_LIMIT = 30.0  # log-odds beyond which nothing is left to tell apart
MAX_ROWS = 10_000  # fitted on; more would cost time and memory and tell little


class Deferral(FittedForm):
    """The gate `deferral`."""

    priced: ClassVar[bool] = True

    def restored(self, tensors: Mapping[str, Tensor], in_features: int, num_labels: int) -> DeferralHead:
        """The head that gave these tensors."""
        head = DeferralHead(in_features, num_labels)
        head.load_state_dict(dict(tensors))
        return head

    def fit(self, rows: GateRows) -> FittedHead:
        """A head, and what it would say of its rows had their units been left out."""
        head, left_out_N2 = fit_deferral(
            rows.inputs.features_ND,
            rows.inputs.judge_logits_NC,
            rows.small_correct,
            rows.large_correct,
            rows.cost,
            rows.group,
            seed=rows.seed,
        )
        return FittedHead(head, gate_score(left_out_N2, rows.deferral_weight))


class DeferralHead(nn.Module):
    """Estimates gain d(x) and relative cost c(x) from `in_features` features and the judge's `num_labels` logits."""

    def __init__(self, in_features: int, num_labels: int) -> None:
        super().__init__()
        self.in_features, self.num_labels = in_features, num_labels
        num_judge = len(SCORES) + num_labels if num_labels else 0
        self.normalizer = UnitNormalizer()
        self.judge_normalizer = FrozenNormalizer(num_judge)
        self.network = KAN([in_features + num_judge, 2], grid_size=2, spline_order=2).double()
        self.double().requires_grad_(False)

    def forward(self, features_ND: Tensor, judge_logits_NC: Tensor) -> Tensor:
        """Gain and cost, [N, 2], in float64."""
        estimates_N2: Tensor = self.network(self.inputs(features_ND, judge_logits_NC))
        return estimates_N2

    def inputs(self, features_ND: Tensor, judge_logits_NC: Tensor) -> Tensor:
        """What the KAN reads: scaled features, then scaled judge outputs."""
        judge_NJ = self.judge_normalizer(judge_outputs(judge_logits_NC))
        return torch.cat([self.normalizer(features_ND.double()), judge_NJ], -1)

    def tensors(self) -> dict[str, Tensor]:
        """All that was fitted."""
        return self.state_dict()

    def score(self, inputs: GateInputs, deferral_weight: float) -> NDArray[np.float64]:
        """Gate score g = weight * c - d, [N]. Raises DataError when the features are not those of the head."""
        num_rows = len(inputs.judge_logits_NC)
        features = np.zeros((num_rows, 0)) if inputs.features_ND is None else np.asarray(inputs.features_ND)
        if features.shape != (num_rows, self.in_features):
            raise DataError(
                f"features of shape {features.shape}, the deferral head reads ({num_rows}, {self.in_features})",
                where="gate",
            )
        estimates_N2 = self(torch.from_numpy(features), torch.from_numpy(inputs.judge_logits_NC))
        return gate_score(estimates_N2.numpy(), deferral_weight)


def gate_score(estimates_N2: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """g = weight * c - d from gain d and cost c; larger = surer. A cost is never negative."""
    return np.asarray(weight * np.maximum(estimates_N2[:, 1], 0) - estimates_N2[:, 0])


def fit_deferral(
    features_ND: NDArray[Any] | None,
    judge_logits_NC: NDArray[np.float64],
    small_correct: NDArray[np.bool_],
    large_correct: NDArray[np.bool_],
    cost: NDArray[np.float64] | None = None,
    group: NDArray[np.object_] | None = None,
    *,
    seed: int = 0,
) -> tuple[DeferralHead, NDArray[np.float64]]:
    """A head fitted on validate rows, and its out-of-fold estimates [N, 2] of gain and cost for the same rows.

    `cost` [N] is what the large model took for each row, in any unit; the head estimates it relative to its mean, from
    the same inputs, since it is not known when the gate decides. A search scores these rows by `gate_score` of the
    out-of-fold estimates. Raises DataError when there are fewer than two units.
    """
    num_rows = len(judge_logits_NC)
    units = Units(group, num_rows)
    if units.count < 2:
        raise DataError(f"a deferral head needs at least two rows or groups, got {units.count}", where="deferral")
    features = torch.from_numpy(np.zeros((num_rows, 0)) if features_ND is None else np.asarray(features_ND))
    logits = torch.from_numpy(np.asarray(judge_logits_NC, dtype=np.float64))
    head = DeferralHead(features.shape[1], logits.shape[1])
    head.judge_normalizer.fit([judge_outputs(logits)])

    rows = units.sample(num_rows, MAX_ROWS, seed)
    layer = head.network.layers[0]
    assert isinstance(layer, KANLinear)
    targets = np.stack([large_correct.astype(np.float64) - small_correct, relative_cost(cost, num_rows)], -1)[rows]
    inputs = layer.features(head.inputs(features[rows], logits[rows])).numpy()
    fit = ridge_left_out(inputs, targets, Units(None if group is None else group[rows], len(rows)))
    layer.weight.copy_(torch.from_numpy(fit.weight.T))
    # The splines of an input sum to one, so a constant is spread over them; the base curves come first.
    layer.weight[:, layer.in_features :] += torch.from_numpy(fit.constant)[:, None] / layer.in_features

    estimates_N2 = head(features, logits).numpy()
    estimates_N2[rows] = fit.left_out
    return head, estimates_N2


def relative_cost(cost: NDArray[np.float64] | None, num_rows: int) -> NDArray[np.float64]:
    """Cost of a large call relative to the mean call, [N]; 1 where nothing is known of it."""
    if cost is None or cost.mean() == 0:
        return np.ones(num_rows)
    return np.asarray(cost / cost.mean())


def judge_outputs(judge_logits_NC: Tensor) -> Tensor:
    """The judge's scores and probabilities, [N, 3 + C]; nothing where there is no judge."""
    if judge_logits_NC.shape[-1] == 0:
        return judge_logits_NC.double()
    logits_NC = judge_logits_NC.double()
    scores = [torch.from_numpy(gate.score(logits_NC.numpy())).clamp(-_LIMIT, _LIMIT) for gate in SCORES.values()]
    return torch.cat([torch.stack(scores, -1), logits_NC.softmax(-1)], -1)
