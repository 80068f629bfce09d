"""The gate: maps the small side's outputs for a row to the score that is compared with the threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AfterValidator
from torch import Tensor

from kcm.cascade.gate_kinds import GateHead, GateInputs, GateRows, form_named
from kcm.cascade.novelty import Novelty, Reach
from kcm.cascade.outcome_rows import OutcomeTable
from kcm.cascade.reference import Reference
from kcm.cascade.thresholds import FAR
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

    `head` is the part fitted on validate rows, None if there is nothing to fit. Heads see logits divided by the
    temperature, and must be fitted on such logits.
    """

    name: GateName = "confidence"
    temperature: float = 1.0
    head: GateHead | None = None
    reach: Reach | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"temperature must be finite and positive, got {self.temperature}", where="gate")
        if self.head is None:
            object.__setattr__(self, "head", form_named(self.name).unfitted())

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The fitted values by name; empty if there are none."""
        assert self.head is not None
        return self.head.tensors()

    def score(
        self, features_ND: NDArray[Any] | None, judge_logits_NC: ArrayLike, small_logits_NC: ArrayLike | None = None
    ) -> NDArray[np.float64]:
        """Gate score [N], float64 and finite; larger is surer. It is FAR for inputs beyond the reach.

        `features_ND` are the encoder's features, `small_logits_NC` the small model's logits (default: the judge's). The
        head decides which of them it reads. Raises DataError for NaN, or if the gate needs features and there are none.
        """
        assert self.head is not None
        score_N = self.head.score(tempered(features_ND, judge_logits_NC, small_logits_NC, self.temperature))
        return score_N if self.reach is None else np.where(self.reach.beyond(np.asarray(judge_logits_NC)), FAR, score_N)


def tempered(
    features_ND: NDArray[Any] | None,
    judge_logits_NC: ArrayLike,
    small_logits_NC: ArrayLike | None,
    temperature: float,
) -> GateInputs:
    """The inputs of a head. Raises DataError for logits that are NaN."""
    judge_NC = np.asarray(judge_logits_NC, dtype=np.float64) / temperature
    small_NC = judge_NC if small_logits_NC is None else np.asarray(small_logits_NC, dtype=np.float64) / temperature
    for model, logits_NC in (("judge", judge_NC), ("small", small_NC)):
        if np.isnan(logits_NC).any():
            raise DataError(f"{model} logits contain NaN", where="gate")
    return GateInputs(judge_NC, small_NC, features_ND)


def restored_gate(
    name: GateName, temperature: float, tensors: Mapping[str, Tensor], reach: Reach | None = None
) -> Gate:
    """The gate from its head's tensors. Raises ConfigError if they are missing, RuntimeError if they do not fit."""
    return Gate(name, temperature, form_named(name).restored(tensors) if tensors else None, reach)


@dataclass(frozen=True, eq=False)
class FittedGate:
    """A gate, and its out-of-fold scores [N] for the rows that it was fitted on, as a search needs them."""

    gate: Gate
    scores: NDArray[np.float64]


def fit_gate(
    name: GateName,
    temperature: float,
    table: OutcomeTable,
    features_ND: NDArray[Any] | None,
    *,
    num_labels: int | None = None,
    reference: Reference | None = None,
    novelty: Novelty | None = None,
    seed: int = 0,
) -> FittedGate:
    """The gate `name` on the validate rows of `table`, with the reach of its rows within scope if there is `novelty`.

    `num_labels`: the small side can answer only this many of the table's labels, the first ones; default all.
    """
    judge_NC, small_NC = table.judge_logits[:, :num_labels], table.small_logits[:, :num_labels]
    gate = form_named(name).fit(
        GateRows(
            inputs=tempered(features_ND, judge_NC, small_NC, temperature),
            small_correct=table.small_correct,
            large_correct=table.large_correct,
            group=table.group,
            reference=reference or Reference.nothing(),
            seed=seed,
        )
    )
    is_known_N = table.label < judge_NC.shape[1]
    if novelty is None or not is_known_N.any():
        return FittedGate(Gate(name, temperature, gate.head), gate.scores)
    reach = Reach.fit(novelty, judge_NC[is_known_N])
    scores_N = np.where(reach.beyond(judge_NC), FAR, gate.scores)
    return FittedGate(Gate(name, temperature, gate.head, reach), scores_N)
