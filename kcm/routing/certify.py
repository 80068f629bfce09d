"""A threshold for any gate score, certified on all rows or on the rows of a split, as in the table or drawn."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict
from typing import Any, Literal, TypedDict

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kcm.cascade.evaluation import route_quality
from kcm.cascade.gate import Gate
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.search import find_policy
from kcm.certification.certificate import CertificateConfig, certificates_json, certify_policy
from kcm.certification.ledger import Hashes, Ledger, Look
from kcm.certification.scores import NOT_RECORDED
from kcm.errors import DataError
from kcm.routing.config import RequestConfig
from kcm.routing.table import RoutingTable
from kcm.tasks.splits import draw
from kcm.tasks.units import connected_units

FRACTIONS = {"validate": 0.4, "certify": 0.4, "test": 0.2}
CHOOSING = 0.2  # share of the rows that choose, if nothing else sets rows aside


def certifying_splits(table: RoutingTable, seed: int, *, credit_wins: bool) -> NDArray[np.object_]:
    """The split of every row, [N], if nothing has to be chosen: the table's own, or all rows certify.

    With `credit_wins`, a fifth of the rows choose if the small model is clearly better on them. A test that credits
    wins then keeps more of the other rows than an exact binomial test keeps of all rows. The choice costs no delta. It
    reads D_i = small right - large right of this fifth only, and rises with every D_i; so does the chance of a false
    certificate on all rows by `regret`. By Harris' inequality, the chance of both this certificate and "all rows
    certify" is at most delta P(all rows certify). On the other rows it is at most delta P(a fifth chooses). The D_i of
    rows in groups are not independent, so groups never choose.
    """
    if table.split is not None:
        return with_splits(table, seed)
    splits = np.full(len(table), "certify", dtype=object)
    if credit_wins and table.group is None:
        chooses = np.array([draw(seed, "choose", name) < CHOOSING for name in unit_names(table)])
        large = table.large_correct | table.large_error
        if small_is_better(table.small_correct[chooses], large[chooses]):
            splits[chooses] = "validate"
    return splits


def small_is_better(small_correct: NDArray[np.bool_], large_correct: NDArray[np.bool_]) -> bool:
    """Whether the small model is right clearly more often: W wins minus L losses exceed two standard errors."""
    num_wins = int((small_correct & ~large_correct).sum())
    num_losses = int((large_correct & ~small_correct).sum())
    return num_wins > num_losses and num_wins - num_losses >= 2 * math.sqrt(num_wins + num_losses)


def with_splits(table: RoutingTable, seed: int) -> NDArray[np.object_]:
    """The split of every row, [N].

    A drawn split depends only on the seed and the row's own unit, so rows added later change no split. Raises DataError
    if a given split shares an item or a group with another split.
    """
    if table.split is None:
        names = pd.Series(unit_names(table))
        split_by_name = {name: _split_at(draw(seed, "route", name)) for name in names.unique()}
        return np.asarray(names.map(split_by_name), dtype=object)
    _refuse_shared(table, table.split, table.item, "the same item", "Leave copies out of one of them")
    if table.group is not None:
        _refuse_shared(table, table.split, table.group, "a group", "Keep the rows of a group together")
    return table.split


def unit_names(table: RoutingTable) -> list[str]:
    """The name of every row's unit, which must stay together: items, and the groups that share items."""
    if table.group is None:
        return [str(item) for item in table.item]
    return connected_units(
        [str(item) for item in table.item], ["" if pd.isna(group) else str(group) for group in table.group]
    )


def _split_at(share: float) -> str:
    for split, fraction in FRACTIONS.items():
        if share < fraction:
            return split
        share -= fraction
    return "test"


def _refuse_shared(
    table: RoutingTable, split: NDArray[np.object_], key: NDArray[np.object_], subject: str, hint: str
) -> None:
    frame = pd.DataFrame({"key": key, "split": split, "name": table.name}).dropna(subset=["key"])
    first = frame.drop_duplicates("key").set_index("key")
    owner = frame["key"].map(first["split"])
    shared = frame[owner != frame["split"]]
    if shared.empty:
        return
    row = shared.iloc[0]
    raise DataError(
        f"{len(shared)} rows repeat what another split holds: {row['name']} ({row['split']}) and"
        f" {first['name'][row['key']]} ({first['split'][row['key']]}) hold {subject}",
        where="split",
        hint=hint,
    )


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
    ledger: Ledger | None = None,
) -> dict[str, Any]:
    """The certificate, and the metrics of the route on the test rows, as plain data.

    With a `ledger`, the look is written down before outcomes are used, and later looks at the same question may spend
    less of delta. Without test rows, the metrics are measured on the certify rows. Raises DataError if there are no
    rows of a split that the request needs.
    """
    validate, certify = np.flatnonzero(splits == "validate"), np.flatnonzero(splits == "certify")
    tables = {"certify": certify} | ({"validate": validate} if request.needs_validate else {})
    for name, rows in tables.items():
        if len(rows) == 0:
            whose = "a table that small" if table.split is None else "the split column"
            hint = "Search and certificate each need their own rows"
            raise DataError(f"{whose} has no {name} rows", where="split", hint=hint)
    look = None
    if ledger is not None:
        about = look_at(table, splits, score_N, request)
        look = ledger.look(**about, purpose="kcm route certify")
    delta = request.delta if look is None else look.spend
    certify_rows = table.select(certify).scored(score_N[certify])
    choosing = table.select(validate).scored(score_N[validate]) if len(validate) else None
    mode = _mode(choosing, request)
    if choosing is None:
        choosing = certify_rows  # `regret` does not read the rows that choose
    promise = promise_of(request).model_copy(update={"method": mode})
    policy, certificates = certify_policy(choosing, certify_rows, _search(choosing, request), promise, delta=delta)
    certificate = certificates[None]
    warnings = []
    if certificate.num_units < certificate.fewest_units:
        warnings.append(
            f"{certificate.num_units} independent certify rows: no certificate is possible at epsilon"
            f" {certificate.epsilon:g} with fewer than {certificate.fewest_units}"
        )
    return {
        **certificates_json(certificates),
        "mode": mode,
        "max_loss": request.max_loss,
        "look": look and look.number,
        "asked_delta": request.delta,
        "num_validate_rows": len(validate),
        "measured_on": measured_split(splits),
        **_measured(table, splits, score_N, policy),
        "warnings": warnings,
        "notes": [*table.notes, *_notes(splits, look)],
    }


def look_at(
    table: RoutingTable, splits: NDArray[np.object_], score_N: NDArray[np.float64], request: RequestConfig
) -> LookAt:
    """The data of a look for a ledger: the units of the whole file, and a digest of everything that decides it."""
    digest = hashlib.sha256(repr(request).encode())
    for column in (score_N, table.small_correct, table.large_correct, table.large_error):
        digest.update(np.ascontiguousarray(column).tobytes())
    for names in (table.item, splits, table.group):
        digest.update(repr(None if names is None else names.tolist()).encode())
    return {"units": table.ledger_units(), "delta": request.delta, "digest": digest.hexdigest()}


def measured_split(splits: NDArray[np.object_]) -> str:
    """The split that figures are measured on: test, or certify if all rows certify."""
    return "test" if (splits == "test").any() else "certify"


def _search(choosing: ScoredOutcomes, request: RequestConfig) -> Policy:
    """The policy found by the search, the most that the certificate may deploy; without a search, keep all."""
    if request.max_loss is not None:
        return find_policy(choosing, Gate(), "global", request.max_loss).policy
    return Policy(decision=KEEP_ALL)


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
