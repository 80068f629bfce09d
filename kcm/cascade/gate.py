"""The gate: maps what the small side says of a row to the score that is compared with the threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AfterValidator
from torch import Tensor

from kcm.cascade.forms import GateHead, GateInputs, GateRows, NovelInputs
from kcm.cascade.reference import Reference
from kcm.cascade.scores import form_named
from kcm.cascade.table import OutcomeTable
from kcm.errors import ConfigError, DataError


def _check_name(name: str) -> str:
    try:
        form_named(name)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return name


GateName = Annotated[str, AfterValidator(_check_name)]


@dataclass(frozen=True, eq=False)
class Gate:
    """The gate of a policy; search, certificate and serving call the same `score`.

    `head` is what was fitted on validate, None for a gate that has nothing to fit. `deferral_weight` is the price of a
    large call in accuracy, used by the gate `deferral` alone. Heads see logits over the temperature, and are to be
    fitted on them.
    """

    name: GateName = "confidence"
    temperature: float = 1.0
    head: GateHead | None = None
    deferral_weight: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"temperature must be finite and positive, got {self.temperature}", where="gate")
        if self.head is None:
            object.__setattr__(self, "head", form_named(self.name).unfitted())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What was fitted, by name; empty where nothing is."""
        assert self.head is not None
        return self.head.tensors()

    def score(
        self, features_ND: NDArray[Any] | None, judge_logits_NC: ArrayLike, small_logits_NC: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Gate score [N], float64 and finite; larger is surer.

        `features_ND` are the encoder's features, `small_logits_NC` the small model's logits, the judge's unless given;
        which of them are read is the head's to say. Raises DataError for NaN, or when the gate needs features and has
        none.
        """
        assert self.head is not None
        return self.head.score(
            tempered(features_ND, judge_logits_NC, small_logits_NC, self.temperature), self.deferral_weight
        )


def tempered(
    features_ND: NDArray[Any] | None,
    judge_logits_NC: ArrayLike,
    small_logits_NC: ArrayLike | None,
    temperature: float,
) -> GateInputs:
    """What heads read of rows. Raises DataError for logits that are NaN."""
    judge_NC = np.asarray(judge_logits_NC, dtype=np.float64) / temperature
    small_NC = judge_NC if small_logits_NC is None else np.asarray(small_logits_NC, dtype=np.float64) / temperature
    for who, logits_NC in (("judge", judge_NC), ("small", small_NC)):
        if np.isnan(logits_NC).any():
            raise DataError(f"{who} logits contain NaN", where="gate")
    return GateInputs(judge_NC, small_NC, features_ND, temperature)


def restored_gate(
    name: GateName,
    temperature: float,
    deferral_weight: float,
    tensors: Mapping[str, Tensor],
    in_features: int,
    num_labels: int,
) -> Gate:
    """The gate whose head gave these tensors. Raises ConfigError where it needs some, RuntimeError for another's."""
    if not tensors:
        return Gate(name, temperature, deferral_weight=deferral_weight)
    return Gate(name, temperature, form_named(name).restored(tensors, in_features, num_labels), deferral_weight)


@dataclass(frozen=True, eq=False)
class FittedGate:
    """A gate, and its scores [N] for the rows that it was fitted on: out-of-fold ones, as a search has to use.

    `novel_scores` [M] are those of the novel rows, where some were given.
    """

    gate: Gate
    scores: NDArray[np.float64]
    novel_scores: NDArray[np.float64] | None = None


def fit_gate(
    name: GateName,
    temperature: float,
    table: OutcomeTable,
    features_ND: NDArray[Any] | None,
    *,
    num_labels: int | None = None,
    reference: Reference | None = None,
    deferral_weight: float = 0.0,
    seed: int = 0,
    novel: NovelInputs | None = None,
) -> FittedGate:
    """The gate `name` on the validate rows of `table`, all of one prompt mode.

    `num_labels` are those of the table's first labels that the small side can answer with, all unless given. The
    inputs of `novel` are at temperature 1.
    """
    form = form_named(name)
    deferral_weight = deferral_weight if form.priced else 0.0
    judge_NC, small_NC = table.judge_logits[:, :num_labels], table.small_logits[:, :num_labels]
    if novel is not None:
        raw = novel.inputs
        inputs = tempered(raw.features_ND, raw.judge_logits_NC, raw.small_logits_NC, temperature)
        novel = replace(novel, inputs=inputs)
    fitted = form.fit(
        GateRows(
            inputs=tempered(features_ND, judge_NC, small_NC, temperature),
            small_correct=table.small_correct,
            large_correct=table.large_correct,
            cost=table.large_cost,
            group=table.group,
            reference=reference or Reference.nothing(),
            deferral_weight=deferral_weight,
            seed=seed,
            novel=novel,
        )
    )
    novel_scores = fitted.novel_scores
    if novel is not None and novel_scores is None:
        novel_scores = fitted.head.score(novel.inputs, deferral_weight)
    return FittedGate(Gate(name, temperature, fitted.head, deferral_weight), fitted.scores, novel_scores)


def distinct_gates(names: Sequence[GateName], num_labels: int) -> tuple[GateName, ...]:
    """Those of `names` that order rows differently: over two labels all scores of the judge alone are one order."""
    unique = tuple(dict.fromkeys(names))
    if num_labels > 2:
        return unique
    alike = [name for name in unique if form_named(name).one_order_over_two_labels]
    return tuple(name for name in unique if name not in alike[1:])
