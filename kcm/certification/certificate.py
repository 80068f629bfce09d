"""A certificate for a frozen cascade.

With probability at least 1 - delta over the draw of the certify rows, the deployed cascade loses at most epsilon
accuracy against sending everything to the large model (Learn then Test, arXiv 2110.01052; RCPS, arXiv 2101.02703). On
logged traffic, the probability is over the draw of the audits instead, see `kcm.certification.window`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import AwareDatetime, Field, model_validator

from kcm.cascade.frontier import Frontier
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Decision, DecisionKind, Policy
from kcm.cascade.thresholds import KEEPS_ALL
from kcm.certification.threshold_paths import (
    EitherPath,
    MethodChoice,
    NetPath,
    RegretPath,
    TableMethod,
    ThresholdPath,
    from_surest,
    frozen_grid,
    not_worse_path,
)
from kcm.config import Config
from kcm.errors import DataError
from kcm.metrics.intervals import Units

Method = Literal[TableMethod, "traffic"]  # on labelled rows, or on logged traffic

# The tests that `auto` chose, by the task whose threshold is certified; None is the key of the common threshold.
Choices = dict[str | None, MethodChoice]
NUM_SAMPLES, MAX_SAMPLED = 20, 10_000  # samples of the rows that choose, and rows per sample


class CertificateConfig(Config):
    """The bounds to certify, and the test."""

    epsilon: float = Field(
        0.02, ge=0, lt=1, description="Largest loss of accuracy against the large model alone; 0: none, by net."
    )
    delta: float = Field(0.1, gt=0, lt=1, description="Probability that the promise may be broken.")
    method: Literal["auto", "regret", "net"] = Field(
        "auto",
        description="regret never credits a win of the small model; net does; auto chooses one of them per threshold:"
        " the test that passes more often on samples of the rows that choose.",
    )

    @model_validator(mode="after")
    def _provable(self) -> CertificateConfig:
        if self.epsilon == 0 and self.method == "regret":
            raise ValueError("epsilon 0 needs method net or auto: regret never credits a win of the small model")
        return self


class CertifiedWindow(Config):
    """The traffic that a certificate was issued on, and when the promise expires.

    The window holds the decisions of certify units with a number in (`after`, `upto`]. For `num_asked` of them the
    large model was asked; `num_labels` were labelled or skipped by a person. Times are UTC.
    """

    application: str
    after: int
    upto: int
    begins_at: AwareDatetime
    ends_at: AwareDatetime
    expires_at: AwareDatetime
    num_decisions: int
    num_asked: int
    num_labels: int = 0


class Certificate(Config):
    """The deployed decision and its promise.

    `bound` is the upper confidence bound on the accuracy that the deployed cascade loses. `call_rate` is measured on
    the certify rows. `certified` is the lowest certified threshold, `searched` the requested one. `valid` is false if
    nothing was `issued`; escalating everything always keeps the promise. A certificate on logged traffic has a
    `window`, and its promise expires.
    """

    method: Method
    epsilon: float
    delta: float
    decision: DecisionKind
    threshold: float | None
    bound: float
    valid: bool
    call_rate: float
    searched: Decision
    certified: Decision
    num_rows: int
    num_units: int
    fewest_units: int
    reason: str
    window: CertifiedWindow | None = None
    statement: str | None = Field(None, description="The promise for the window, and the promise for later traffic.")

    @property
    def route(self) -> Decision:
        """The deployed decision."""
        return Decision(decision=self.decision, threshold=self.threshold)

    @property
    def issued(self) -> bool:
        """Whether any row was tested; if not, nothing is promised."""
        return self.num_rows > 0


def certify(
    validate: ScoredOutcomes,
    rows: ScoredOutcomes,
    searched: Decision,
    config: CertificateConfig,
    *,
    delta: float | None = None,
    choices: Choices | None = None,
    task: str | None = None,
) -> Certificate:
    """Deploy the searched decision if it is certified; if not, the stricter certified one; if none is, escalate all.

    `validate` fixes everything that must not depend on `rows`: the tests of `auto`, and the grid. `delta` is the part
    of delta that this look at the rows may spend (see `kcm.certification.ledger`); None means the config's delta.
    `choices` carries the tests of `auto`, by `task`, from one call to the next, if `validate` stays the same.

    Raises DataError without rows, and ConfigError for `regret` under a prompt that changes the large model's answers.
    """
    if len(validate) == 0 or len(rows) == 0:
        raise DataError("a certificate needs validate and certify rows", where="outcome table")
    spend = config.delta if delta is None else delta
    path = _path(validate, rows, searched, config, spend, {} if choices is None else choices, task)
    fields = deployed_fields(path, rows, searched, config, spend)
    deployed = Decision(decision=fields["decision"], threshold=fields["threshold"])
    return Certificate(method=path.method(deployed.cut), **fields)


def deployed_fields(
    path: ThresholdPath, rows: ScoredOutcomes, searched: Decision, config: CertificateConfig, delta: float
) -> dict[str, Any]:
    """The fields of a certificate that follow from the tested path, for every method."""
    lowest = Decision.of(path.certified()).cut
    threshold = max(searched.cut, lowest)
    route = Decision.of(threshold)
    return {
        "epsilon": config.epsilon,
        "delta": delta,
        "decision": route.decision,
        "threshold": route.threshold,
        "bound": _bound(path, threshold, searched.cut, config.epsilon),
        "valid": True,
        "call_rate": float((rows.score <= threshold).mean()),
        "searched": searched,
        "certified": Decision.of(lowest),
        "num_rows": len(rows),
        "num_units": path.num_units,
        "fewest_units": path.fewest_units,
        "reason": _reason(path, threshold, lowest, searched.cut, config),
    }


def certify_policy(
    validate: ScoredOutcomes,
    rows: ScoredOutcomes,
    policy: Policy,
    config: CertificateConfig,
    *,
    delta: float | None = None,
    choices: Choices | None = None,
) -> tuple[Policy, dict[str | None, Certificate]]:
    """The policy to deploy and its certificates by task; None is the key of the decision for all other requests.

    Every decision of the policy spends an equal share of delta, so that all promises hold together. A task without
    validate or certify rows loses its own decision and follows the common one.
    """
    share = (config.delta if delta is None else delta) / (1 + len(policy.task_decisions))
    choices = {} if choices is None else choices
    common = certify(validate, rows, policy.decision, config, delta=share, choices=choices)
    certificates: dict[str | None, Certificate] = {None: common}
    if policy.task_decisions:
        validate_rows, task_rows = validate.by_task(), rows.by_task()
        for task, decision in policy.task_decisions.items():
            if task in task_rows and task in validate_rows:
                arguments = validate_rows[task], task_rows[task], decision, config
                certificates[task] = certify(*arguments, delta=share, choices=choices, task=task)
    tasks = {task: certificate.route for task, certificate in certificates.items() if task is not None}
    return policy.model_copy(update={"decision": common.route, "task_decisions": tasks}), certificates


def uncertified_policy(
    validate: ScoredOutcomes, rows: ScoredOutcomes, policy: Policy, config: CertificateConfig, *, threshold: float
) -> tuple[Policy, dict[str | None, Certificate]]:
    """The policy that keeps scores above `threshold` without a promise, as `certify_policy` returns it; tests no row.

    The call rate is measured on the `validate` rows, or 1 without any.
    """
    decision = Decision.of(threshold)
    empty = Certificate(
        method="traffic",
        epsilon=config.epsilon,
        delta=config.delta,
        decision=decision.decision,
        threshold=decision.threshold,
        bound=1.0,
        valid=False,
        call_rate=float((validate.score <= threshold).mean()) if len(validate) else 1.0,
        searched=decision,
        certified=ESCALATE_ALL,
        num_rows=0,
        num_units=0,
        fewest_units=0,
        reason="no certify rows: `kcm update` certifies on traffic",
    )
    return policy.model_copy(update={"decision": decision, "task_decisions": {}}), {None: empty}


def confidence(deltas: Iterable[float]) -> str:
    """The probability with which promises that spend `deltas` hold together, as `93.9%`, rounded down to a tenth."""
    return f"{math.floor(round(1000 * (1 - sum(deltas)), 6)) / 10:g}%"


def why_not_promotable(policy: Policy, certificates: Mapping[str | None, Certificate]) -> str | None:
    """Why a certified policy is not promoted automatically, with the certificate's reason; None if it may be.

    A policy that escalates everything saves nothing, so a person has to promote it explicitly.
    """
    if any(decision != ESCALATE_ALL for decision in (policy.decision, *policy.task_decisions.values())):
        return None
    common = certificates.get(None)
    reason = f", because {common.reason}" if common is not None else ""
    return f"it escalates everything{reason}"


def certificates_json(certificates: Mapping[str | None, Certificate]) -> dict[str, Any]:
    """The common certificate as plain values; `tasks` holds the certificates of tasks with their own decision."""
    task_certificates = {
        task: certificate.model_dump(mode="json") for task, certificate in certificates.items() if task is not None
    }
    return certificates[None].model_dump(mode="json") | {"tasks": task_certificates}


def certificate_curve(
    certificate: Certificate, validate: ScoredOutcomes, rows: ScoredOutcomes, config: CertificateConfig
) -> dict[str, Any]:
    """What a report draws of a certificate on certify rows: columns over falling thresholds, and the `method`.

    `p_value` and `bound` come from the test at each threshold, at the certificate's delta; a bound holds for a
    threshold that was chosen beforehand. `loss` is the loss in the sample, with wins credited unless the method is
    `regret`. The thresholds continue beyond the searched one. There are no points if no certify row was tested.
    """
    columns: dict[str, list[float]] = {name: [] for name in ("threshold", "p_value", "loss", "bound", "call_rate")}
    method: str = certificate.method
    if len(validate) and len(rows) and method in ("regret", "net"):
        method = config.method
        path = _path(validate, rows, certificate.searched, config, certificate.delta, {})
        grid = frozen_grid(Frontier.of(validate), certificate.searched.cut, beyond=True)
        lost_N = rows.certified_baseline.astype(np.int8) - rows.small_correct
        lost_N = np.maximum(lost_N, 0) if method == "regret" else lost_N
        for threshold in grid[grid >= KEEPS_ALL].tolist():
            kept_N = rows.score > threshold
            columns["threshold"].append(threshold)
            columns["p_value"].append(path.p_value(threshold))
            columns["loss"].append(float(np.where(kept_N, lost_N, 0).mean()))
            columns["bound"].append(path.upper_bound(threshold))
            columns["call_rate"].append(float(1 - kept_N.mean()))
    return {"method": method, **columns}


def _path(
    validate: ScoredOutcomes,
    rows: ScoredOutcomes,
    searched: Decision,
    config: CertificateConfig,
    delta: float,
    choices: Choices,
    task: str | None = None,
) -> ThresholdPath:
    """The tested path of accuracy."""
    grid = frozen_grid(Frontier.of(validate), searched.cut)
    if config.epsilon == 0:
        grid = from_surest(grid, not_worse_path(validate, grid, delta), searched.cut)
    if config.method == "regret":
        return RegretPath(rows, config.epsilon, delta)
    if config.epsilon == 0:
        return not_worse_path(rows, grid, delta)
    if config.method == "net":
        return NetPath(rows, grid, config.epsilon, delta)
    if task not in choices:
        choices[task] = MethodChoice(_samples(validate, len(rows)), config.epsilon, delta)
    return EitherPath(rows, grid, config.epsilon, delta, choices[task])


def _samples(validate: ScoredOutcomes, num_rows: int) -> list[ScoredOutcomes]:
    """Possible samples of `num_rows` certify rows: draws of whole units of the rows that choose, or all those rows."""
    units, max_rows = Units(validate.group, len(validate)), min(num_rows, MAX_SAMPLED)
    if max_rows >= len(validate):
        return [validate]
    return [validate.select(units.sample(len(validate), max_rows, seed)) for seed in range(NUM_SAMPLES)]


def _bound(path: ThresholdPath, threshold: float, searched: float, epsilon: float) -> float:
    """The loss bound; the searched threshold has its own, fixed beforehand, and any other threshold has epsilon."""
    if threshold == math.inf:
        return 0.0
    return min(path.upper_bound(threshold), epsilon) if threshold == searched else epsilon


def _reason(path: ThresholdPath, threshold: float, lowest: float, searched: float, config: CertificateConfig) -> str:
    if threshold == searched == math.inf:
        return "the search escalates all"
    if lowest == math.inf and path.num_units < path.fewest_units:
        return f"nothing is certified: {path.num_units} units, at least {path.fewest_units} are needed"
    if lowest == math.inf and config.epsilon == 0:
        return "nothing is certified: no threshold is shown to be as accurate as the large model"
    if lowest == math.inf:
        return f"nothing is certified: every threshold may lose more than epsilon {config.epsilon}"
    if searched == KEEP_ALL.cut and threshold > searched:
        return "the lowest certified threshold is deployed"
    if threshold == searched:
        return "the searched decision is certified"
    return "the searched threshold did not pass; the closest stricter threshold that passed is deployed"
