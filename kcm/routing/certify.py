"""A threshold for any gate score: searched on validate, certified on certify, measured on test."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.evaluation import route_quality
from kcm.cascade.frontier import Frontier
from kcm.cascade.gate import Gate
from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.cascade.search import find_policy
from kcm.certification.certificate import Certificate, CertificateConfig, certify_policy
from kcm.certification.ledger import Ledger, unit_hashes
from kcm.certification.outlook import fewest
from kcm.errors import ConfigError, DataError
from kcm.routing.config import RequestConfig
from kcm.routing.table import RoutingTable

DRAWN_WARNING = "the table is too small to be split into validate and certify rows"


def promise_of(request: RequestConfig) -> CertificateConfig:
    """The certificate that a request asks for."""
    return CertificateConfig(
        epsilon=request.epsilon,
        delta=request.delta,
        method=request.mode,
        every_task=request.scope == "every_task",
        max_call_rate=request.max_call_rate,
    )


def certify_table(
    table: RoutingTable,
    splits: NDArray[np.object_],
    score_N: NDArray[np.float64],
    request: RequestConfig,
    ledger: Path | None = None,
) -> dict[str, Any]:
    """The certificate, and the metrics of the route on the test rows, as plain data.

    With a `ledger` the look at the certify rows is written down before they are read, and later looks may spend less of
    delta; the same request on the same rows and scores is the same look. Raises ConfigError for a scope by task without
    tasks, DataError for a given split without validate or certify rows.
    """
    if request.scope != "global" and table.task is None:
        raise ConfigError(f"scope {request.scope!r} needs a task column", where="--scope", hint="Give --task COLUMN")
    validate, certify = np.flatnonzero(splits == "validate"), np.flatnonzero(splits == "certify")
    for name, rows in (("validate", validate), ("certify", certify)):
        if len(rows) == 0 and table.split is not None:
            raise DataError(
                f"the split column has no {name} rows", where="split", hint="Search and certificate need rows each"
            )
    promise = promise_of(request)
    delta, look = _spend(table, certify, score_N, request, ledger)
    if len(validate) == 0 or len(certify) == 0:
        policy = Policy(decision=ESCALATE_ALL)
        certificates: dict[str | None, Certificate] = {None: _nothing(promise, delta, len(certify))}
    else:
        validate_rows = table.select(validate).scored(score_N[validate])
        certify_rows = table.select(certify).scored(score_N[certify])
        scope: Literal["global", "per_task"] = "per_task" if request.scope == "per_task" else "global"
        searched = find_policy(validate_rows, Gate(), scope, request.searched_loss).policy
        policy, certificates = certify_policy(validate_rows, certify_rows, searched, promise, delta=delta)
    common = certificates[None]
    warnings = [_warning(task, each) for task, each in certificates.items() if each.num_units < each.fewest_units]
    return {
        **common.model_dump(mode="json"),
        "max_loss": request.searched_loss,
        "scope": request.scope,
        "look": look,
        "asked_delta": request.delta,
        "num_validate_rows": len(validate),
        "tasks": {task: each.model_dump(mode="json") for task, each in certificates.items() if task is not None},
        "test": _on_test(table, splits, score_N, policy),
        "mean_costs": _mean_costs(table, splits),
        "warnings": warnings,
        "notes": [*table.notes, *([] if ledger else ["no ledger: the promise holds for a first look at these rows"])],
    }


def _nothing(promise: CertificateConfig, delta: float, num_rows: int) -> Certificate:
    """The certificate of escalating everything, which loses nothing and needs no rows."""
    method: Literal["regret", "net"] = "net" if promise.method == "net" else "regret"
    return Certificate(
        method=method,
        epsilon=promise.epsilon,
        delta=delta,
        decision="escalate_all",
        threshold=None,
        bound=0.0,
        valid=promise.max_call_rate is None,
        call_rate=1.0,
        call_rate_bound=None if promise.max_call_rate is None else 1.0,
        searched=ESCALATE_ALL,
        certified=ESCALATE_ALL,
        num_rows=num_rows,
        num_units=num_rows,
        fewest_units=fewest(promise.epsilon, delta, method),
        reason=f"nothing is certified: {DRAWN_WARNING}",
    )


def _spend(
    table: RoutingTable,
    certify: NDArray[np.intp],
    score_N: NDArray[np.float64],
    request: RequestConfig,
    path: Path | None,
) -> tuple[float, int | None]:
    """What this look may spend, and its number; all of delta where no ledger is kept."""
    if path is None or len(certify) == 0:
        return request.delta, None
    digest = hashlib.sha256(np.ascontiguousarray(score_N[certify]).tobytes())
    digest.update(repr(request).encode())
    units = unit_hashes(map(str, table.item))
    look = Ledger(path).look(units, delta=request.delta, digest=digest.hexdigest(), purpose="kcm route certify")
    return look.spend, look.number


def _warning(task: str | None, certificate: Certificate) -> str:
    what = "rows" if task is None else f"rows of task {task!r}"
    return (
        f"{certificate.num_units} independent certify {what}: no certificate is possible at epsilon"
        f" {certificate.epsilon:g} with fewer than {certificate.fewest_units}"
    )


def _on_test(
    table: RoutingTable, splits: NDArray[np.object_], score_N: NDArray[np.float64], policy: Policy
) -> dict[str, Any] | None:
    """The metrics of the route on test rows, which neither search nor certificate has read."""
    test = np.flatnonzero(splits == "test")
    part, costs = table.select(test), table.select(test).costs()
    rows = part.scored(score_N[test])
    large_cost, small_cost = costs or (np.zeros(len(test)), np.zeros(len(test)))
    quality = route_quality(rows, policy.keep(rows.score, rows.task), large_cost, small_cost)
    return None if quality is None else asdict(quality)


def _mean_costs(table: RoutingTable, splits: NDArray[np.object_]) -> dict[str, float] | None:
    """What an answer of either model costs on the test rows, in the table's unit; None where the table does not say."""
    test = np.flatnonzero(splits == "test")
    costs = table.select(test).costs() if len(test) else None
    return costs and {"large": float(costs[0].mean()), "small": float(costs[1].mean())}


def frontier_curve(frontier: Frontier) -> dict[str, list[float | None]]:
    """The frontier's curve as plain data; the thresholds of `escalate all` and `keep all`, its ends, are None."""
    columns = {name: column.tolist() for name, column in frontier.curve().items()}
    return columns | {"threshold": [t if math.isfinite(t) else None for t in columns["threshold"]]}
