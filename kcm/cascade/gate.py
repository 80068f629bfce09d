"""The gate: maps the judge's output to the score that is compared with the threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import AfterValidator

from kcm.cascade.deferral import DeferralHead, fit_deferral, gate_score
from kcm.cascade.scores import score_named
from kcm.cascade.table import OutcomeTable
from kcm.errors import ConfigError, DataError

DEFERRAL = "deferral"  # the gate of a fitted head; all others are gate scores of the judge alone


def _check_name(name: str) -> str:
    try:
        if name != DEFERRAL:
            score_named(name)
    except ConfigError as error:
        raise ValueError(f"{error}; {DEFERRAL!r} is the gate of a fitted head") from None
    return name


GateName = Annotated[str, AfterValidator(_check_name)]

# Thresholds lie between scores and have to be finite, so an infinitely sure row gets this score instead.
SCORE_LIMIT = 1e9


@dataclass(frozen=True, eq=False)
class Gate:
    """The gate of a policy; search, certificate and serving call the same `score`.

    `deferral` is needed by the gate of that name alone, as is `deferral_weight`, its price of a large call in accuracy.
    The head sees the judge's logits over the temperature, and is to be fitted on them.
    """

    name: GateName = "confidence"
    temperature: float = 1.0
    deferral: DeferralHead | None = None
    deferral_weight: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"temperature must be finite and positive, got {self.temperature}", where="gate")
        if self.name == DEFERRAL and self.deferral is None:
            raise ConfigError("the gate 'deferral' needs its fitted head", where="gate", mend="Fit one on validate")

    def score(self, features_ND: NDArray[Any] | None, judge_logits_NC: ArrayLike) -> NDArray[np.float64]:
        """Gate score [N], float64 and finite; larger is surer.

        `features_ND` are the encoder's features, read by the gate `deferral` alone.
        Raises DataError for NaN, or when the gate needs features and has none.
        """
        scaled_NC = np.asarray(judge_logits_NC, dtype=np.float64) / self.temperature
        if np.isnan(scaled_NC).any():
            raise DataError("judge logits contain NaN", where="gate")
        if self.name == DEFERRAL:
            assert self.deferral is not None
            return self.deferral.score(features_ND, scaled_NC, self.deferral_weight)
        return np.asarray(np.clip(score_named(self.name).score(scaled_NC), -SCORE_LIMIT, SCORE_LIMIT))


@dataclass(frozen=True, eq=False)
class FittedGate:
    """A gate, and its scores [N] for the rows that it was fitted on: out-of-fold ones, as a search has to use."""

    gate: Gate
    scores: NDArray[np.float64]


def fit_gate(
    name: GateName,
    temperature: float,
    table: OutcomeTable,
    features_ND: NDArray[Any] | None,
    judge_logits_NC: NDArray[np.float64],
    *,
    deferral_weight: float = 0.0,
    seed: int = 0,
) -> FittedGate:
    """The gate `name` on the validate rows of `table`, all of one prompt mode; only `deferral` has anything to fit.

    `judge_logits_NC` are the table's over the labels that the judge can answer with.
    """
    if name != DEFERRAL:
        gate = Gate(name, temperature)
        return FittedGate(gate, gate.score(features_ND, judge_logits_NC))
    head, out_of_fold_N2 = fit_deferral(
        features_ND,
        judge_logits_NC / temperature,
        table.small_correct,
        table.large_correct,
        table.large_cost,
        table.group,
        seed=seed,
    )
    return FittedGate(Gate(DEFERRAL, temperature, head, deferral_weight), gate_score(out_of_fold_N2, deferral_weight))


def distinct_gates(names: Sequence[GateName], num_labels: int) -> tuple[GateName, ...]:
    """Those of `names` that order rows differently: over two labels all scores of the judge alone are one order."""
    unique = tuple(dict.fromkeys(names))
    if num_labels > 2:
        return unique
    alike = [name for name in unique if name != DEFERRAL and score_named(name).one_order_over_two_labels]
    return tuple(name for name in unique if name not in alike[1:])
