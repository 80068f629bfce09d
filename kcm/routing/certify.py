"""A threshold for any gate score, certified on all rows or on the rows that a split reserves for it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.evaluation import route_quality
from kcm.cascade.frontier import Frontier
from kcm.cascade.gate import Gate
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Policy
from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.search import find_policy
from kcm.certification.certificate import Certificate, CertificateConfig, certificates_json, certify_policy
from kcm.certification.ledger import Hashes, Ledger, Look
from kcm.certification.sample_size import fewest
from kcm.certification.scores import NOT_RECORDED
from kcm.errors import ConfigError, DataError
from kcm.routing.config import RequestConfig
from kcm.routing.splits import small_is_better
from kcm.routing.table import RoutingTable

DRAWN_WARNING = "the table is too small to be split into validate and certify rows"


class LookAt(TypedDict):
    """The arguments of a look."""

    units: dict[str, Hashes]
    delta: float
    digest: str


def promise_of(request: RequestConfig) -> CertificateConfig:
    """The certificate that a request asks for."""
    return CertificateConfig(epsilon=request.epsilon, delta=request.delta, method=request.mode)


def certify_table(
    table: RoutingTable,
    splits: NDArray[np.object_],
    score_N: NDArray[np.float64],
    request: RequestConfig,
    ledger: str | Path | Ledger | None = None,
) -> dict[str, Any]:
    """The certificate, and the metrics of the route on the test rows, as plain data.

    With a `ledger`, the look is written down before outcomes are used, and later looks at the same question may spend
    less of delta. Without test rows, the metrics are measured on the certify rows. Raises ConfigError for a scope by
    task without tasks, DataError for a given split without the rows that the request needs.
    """
    if request.scope != "global" and table.task is None:
        raise ConfigError(f"scope {request.scope!r} needs a task column", where="--scope", hint="Give --task COLUMN")
    validate, certify = np.flatnonzero(splits == "validate"), np.flatnonzero(splits == "certify")
    tables = {"certify": certify} | ({"validate": validate} if request.needs_validate else {})
    for name, rows in tables.items():
        if len(rows) == 0 and table.split is not None:
            hint = "Search and certificate each need their own rows"
            raise DataError(f"the split column has no {name} rows", where="split", hint=hint)
    look = None
    if ledger is not None and len(certify):
        open_ledger, about = opened_ledger(ledger), look_at(table, splits, score_N, request)
        look = open_ledger.look(**about, purpose="kcm route certify")
    delta = request.delta if look is None else look.spend
    promise, mode = promise_of(request), request.mode
    if not all(map(len, tables.values())):
        policy = Policy(decision=ESCALATE_ALL)
        certificates: dict[str | None, Certificate] = {None: _empty_certificate(promise, delta, len(certify))}
    else:
        certify_rows = table.select(certify).scored(score_N[certify])
        choosing = table.select(validate).scored(score_N[validate]) if len(validate) else None
        mode = _mode(choosing, request)
        if choosing is None:
            choosing = certify_rows  # `regret` does not read the rows that choose
        searched = _search(choosing, request)
        promise_used = promise.model_copy(update={"method": mode})
        policy, certificates = certify_policy(choosing, certify_rows, searched, promise_used, delta=delta)
    warnings = [
        _warning(task, certificate)
        for task, certificate in certificates.items()
        if certificate.num_units < certificate.fewest_units
    ]
    return {
        **certificates_json(certificates),
        "mode": mode,
        "max_loss": request.max_loss,
        "scope": request.scope,
        "look": look and look.number,
        "asked_delta": request.delta,
        "num_validate_rows": len(validate),
        "measured_on": measured_split(splits),
        **_measured(table, splits, score_N, policy),
        "warnings": warnings,
        "notes": [*table.notes, *_notes(splits, look)],
    }


def opened_ledger(ledger: str | Path | Ledger) -> Ledger:
    """The ledger in a folder, or an open ledger unchanged."""
    return ledger if isinstance(ledger, Ledger) else Ledger(ledger)


def look_at(
    table: RoutingTable, splits: NDArray[np.object_], score_N: NDArray[np.float64], request: RequestConfig
) -> LookAt:
    """The data of a look for a ledger: the units of the whole file, and a digest of everything that decides it."""
    digest = hashlib.sha256(repr(request).encode())
    for column in (score_N, table.small_correct, table.large_correct, table.large_error):
        digest.update(np.ascontiguousarray(column).tobytes())
    for names in (table.item, splits, table.group, table.task):
        digest.update(repr(None if names is None else names.tolist()).encode())
    return {"units": table.ledger_units(), "delta": request.delta, "digest": digest.hexdigest()}


def measured_split(splits: NDArray[np.object_]) -> str:
    """The split that figures are measured on: test, or certify if all rows certify."""
    return "test" if (splits == "test").any() else "certify"


def _search(choosing: ScoredOutcomes, request: RequestConfig) -> Policy:
    """The policy found by the search, the most that the certificate may deploy; without a search, keep all."""
    if request.max_loss is not None:
        return find_policy(choosing, Gate(), request.scope, request.max_loss).policy
    tasks = dict.fromkeys(choosing.by_task(), KEEP_ALL) if request.scope == "per_task" else {}
    return Policy(decision=KEEP_ALL, task_decisions=tasks)


def _mode(choosing: ScoredOutcomes | None, request: RequestConfig) -> Literal["auto", "regret", "net"]:
    """The test: the requested one; for `auto`, regret unless crediting wins clearly pays.

    Regret is an exact binomial test, and a test chosen at random from few rows is worse.
    """
    if request.mode != "auto" or request.epsilon == 0:
        return request.mode
    pays = choosing is not None and small_is_better(choosing.small_correct, choosing.certified_baseline)
    return "auto" if pays else "regret"


def _notes(splits: NDArray[np.object_], look: Look | None) -> list[str]:
    notes = [] if look else [NOT_RECORDED]
    if measured_split(splits) == "certify":
        notes.append("all rows certify, so the figures are measured on the rows that chose the threshold")
    return notes


def _empty_certificate(promise: CertificateConfig, delta: float, num_rows: int) -> Certificate:
    """The certificate of escalating everything, which loses nothing and needs no rows."""
    method: Literal["regret", "net"] = "net" if promise.method == "net" or promise.epsilon == 0 else "regret"
    return Certificate(
        method=method,
        epsilon=promise.epsilon,
        delta=delta,
        decision="escalate_all",
        threshold=None,
        bound=0.0,
        valid=True,
        call_rate=1.0,
        searched=ESCALATE_ALL,
        certified=ESCALATE_ALL,
        num_rows=num_rows,
        num_units=num_rows,
        fewest_units=fewest(promise.epsilon, delta, method),
        reason=f"nothing is certified: {DRAWN_WARNING}",
    )


def _warning(task: str | None, certificate: Certificate) -> str:
    subject = "rows" if task is None else f"rows of task {task!r}"
    return (
        f"{certificate.num_units} independent certify {subject}: no certificate is possible at epsilon"
        f" {certificate.epsilon:g} with fewer than {certificate.fewest_units}"
    )


def _measured(
    table: RoutingTable, splits: NDArray[np.object_], score_N: NDArray[np.float64], policy: Policy
) -> dict[str, Any]:
    """Metrics of the route and each model's mean cost, in the table's unit; None if unknown.

    Measured on test rows, which neither search nor certificate has read, or on certify rows.
    """
    test = np.flatnonzero(splits == measured_split(splits))
    part = table.select(test)
    rows, costs = part.scored(score_N[test]), part.costs()
    large_cost, small_cost = costs or (np.zeros(len(test)), np.zeros(len(test)))
    quality = route_quality(rows, policy.keep(rows.score, rows.task), large_cost, small_cost)
    return {
        "test": quality and asdict(quality),
        "mean_costs": {"large": float(large_cost.mean()), "small": float(small_cost.mean())}
        if costs and len(test)
        else None,
    }


def frontier_curve(frontier: Frontier) -> dict[str, list[float | None]]:
    """The frontier's curve as plain data; the end thresholds, `escalate all` and `keep all`, are None."""
    columns = {name: column.tolist() for name, column in frontier.curve().items()}
    return columns | {"threshold": [t if math.isfinite(t) else None for t in columns["threshold"]]}
