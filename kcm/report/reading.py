"""How a run's result is read: who took part, which tasks there were, and what may be absent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kcm.collaborator.collaborator import CollaboratorName
from kcm.costs import Prices
from kcm.metrics.routing import thinned
from kcm.report.formats import known

Numbers = Mapping[str, Any]
Columns = Mapping[str, Sequence[Any]]
Who = CollaboratorName

NAMES: dict[Who, str] = {"kcm": "KCM", "mcm": "MCM", "linear": "Logistic"}
ALL_TASKS = "All tasks"
OUTCOME_METRICS = (  # of every task, on the page and on the terminal
    *("large_accuracy", "small_accuracy", "cascade_accuracy", "difference"),
    *("call_rate", "calls_saved", "cost_saved"),
)
SLIDER_POINTS = 101


def collaborators(result: Numbers) -> dict[Who, Numbers]:
    """The collaborators that `result` has, in its order: the first is deployed, the others are its controls."""
    names: dict[str, Who] = {name: name for name in NAMES}
    return {names[key]: side for key, side in result.items() if key in names and side}


def called(who: Who, form: str | None) -> str:
    """A collaborator's name with its form beside it, as `KCM (quadratic)`."""
    return f"{NAMES[who]} ({form})" if form else NAMES[who]


def named(result: Numbers) -> dict[Who, str]:
    """What each collaborator of `result` is called."""
    return {who: called(who, side.get("form")) for who, side in collaborators(result).items()}


def deployed(result: Numbers) -> tuple[Who, Numbers]:
    """The collaborator that is certified and deployed."""
    return next(iter(collaborators(result).items()))


def alone(result: Numbers) -> dict[str, Any]:
    """The result without the controls."""
    who, controls = deployed(result)[0], collaborators(result)
    return {key: value for key, value in result.items() if key == who or key not in controls}


def certificate_of(result: Numbers) -> Numbers:
    """The certificate of the deployed collaborator; empty if there is none."""
    return result.get("certificate") or {}


def certificates(certificate: Numbers) -> dict[str | None, Numbers]:
    """The certificate of the common decision (None), and of each task with its own decision."""
    return {None: certificate, **(certificate.get("tasks") or {})}


def escalates_all(certificate: Numbers) -> bool:
    """Whether no decision keeps anything."""
    return all(row.get("decision") == "escalate_all" for row in certificates(certificate).values())


def is_certified(certificate: Numbers) -> bool:
    """Whether something is kept under a promise that holds; where all is escalated there is nothing to promise."""
    valid = all(row.get("valid") for row in certificates(certificate).values())
    return valid and "decision" in certificate and not escalates_all(certificate)


def outcomes(result: Numbers) -> list[tuple[str, dict[Who, Numbers]]]:
    """Name and row per collaborator for all tasks together, then for each task; a single task appears once."""
    overall = {who: side["overall"] for who, side in collaborators(result).items()}
    tasks = {who: side.get("tasks") or {} for who, side in collaborators(result).items()}
    names = dict.fromkeys(name for rows in tasks.values() for name in rows)
    by_task = [(name, {who: rows[name] for who, rows in tasks.items() if name in rows}) for name in names]
    if len(by_task) == 1 and _num_rows(overall) == _num_rows(by_task[0][1]):
        return [(by_task[0][0], overall)]
    return [(ALL_TASKS, overall), *by_task]


def _num_rows(rows: Mapping[Who, Numbers]) -> set[Any]:
    return {row.get("num_rows") for row in rows.values()}


def task_names(result: Numbers) -> list[str]:
    """Names of the tasks in the order of the accuracy matrix, which may know more tasks than were reported."""
    names = list(dict.fromkeys(name for c in collaborators(result).values() for name in c.get("tasks") or ()))
    longest = max(len(c.get("accuracy_matrix") or ()) for c in collaborators(result).values())
    return [*names, *(f"task {index + 1}" for index in range(len(names), longest))]


def sides(result: Numbers, part: str) -> dict[Who, Any]:
    """A part of what was measured, by collaborator; those without it are left out."""
    return {who: side[part] for who, side in collaborators(result).items() if side.get(part)}


def flat(values: Numbers, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted names; a decision is one value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and "decision" not in value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def tested(path: Columns) -> list[Numbers]:
    """The points of a certificate's path that can be drawn, by falling threshold: `p_value`, `loss`, `bound`, ..."""
    columns = {name: column for name, column in path.items() if name != "method"}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    drawn = [row for row in rows if all(known(row.get(name)) for name in ("threshold", "p_value", "loss", "call_rate"))]
    return sorted(drawn, key=lambda row: -row["threshold"])


def nearest(rows: Sequence[Numbers], threshold: float | None) -> Numbers | None:
    """The tested point nearest to `threshold`; None if there is none."""
    return min(rows, key=lambda row: abs(row["threshold"] - threshold), default=None) if known(threshold) else None


def threshold_points(
    frontier: Columns, path: Columns, prices: Prices | None, deployed_at: float | None
) -> list[dict[str, float | None]]:
    """What each threshold would do: accuracy and calls on test, money per 1,000 inputs, and its bound on certify.

    Between the written points of the frontier lies a line. `is_deployed` marks the point nearest to `deployed_at`.
    """
    columns = zip(*(frontier.get(name, ()) for name in ("threshold", "accuracy", "call_rate")), strict=True)
    curve = sorted(row for row in columns if all(map(known, row)) and abs(row[0]) < 1e300)
    rows = tested(path) if curve else []
    rows = [rows[index] for index in thinned(len(rows), SLIDER_POINTS)]
    at_deployed = nearest(rows, deployed_at)
    points = []
    for row in rows:
        at = row["threshold"]
        accuracy, call_rate = (float(np.interp(at, [r[0] for r in curve], [r[i] for r in curve])) for i in (1, 2))
        points.append(
            {
                "threshold": at,
                "accuracy": accuracy,
                "call_rate": call_rate,
                "saved": prices.saved_per_1000(1 - call_rate) if prices else None,
                "bound": row.get("bound"),
                "is_deployed": row is at_deployed,
            }
        )
    return points
