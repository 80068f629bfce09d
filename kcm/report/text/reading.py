"""How a run's result is read: who took part, which tasks there were, and what may be absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from kcm.report.text.formats import known

Numbers = Mapping[str, Any]
Who = Literal["kcm", "mcm"]

NAMES: dict[Who, str] = {"kcm": "KCM", "mcm": "MCM"}
ALL_TASKS = "All tasks"


def collaborators(result: Numbers) -> dict[Who, Numbers]:
    """The collaborators that `result` has, in its order: the first is deployed, the other is its control."""
    known_names: dict[str, Who] = {name: name for name in NAMES}
    return {known_names[key]: found for key, found in result.items() if key in known_names and found}


def deployed(result: Numbers) -> tuple[Who, Numbers]:
    """The collaborator that is certified and deployed."""
    return next(iter(collaborators(result).items()))


def certificate_of(result: Numbers) -> Numbers:
    """The certificate of the deployed collaborator; empty where there is none."""
    return result.get("certificate") or {}


def certificates(certificate: Numbers) -> dict[str | None, Numbers]:
    """The certificate of the common decision (None), and those of tasks with a decision of their own."""
    return {None: certificate, **(certificate.get("tasks") or {})}


def escalates_all(certificate: Numbers) -> bool:
    """Whether no decision keeps anything."""
    return all(each.get("decision") == "escalate_all" for each in certificates(certificate).values())


def is_certified(certificate: Numbers) -> bool:
    """Whether something is kept under a promise that holds; where all is escalated there is nothing to promise."""
    valid = all(each.get("valid") for each in certificates(certificate).values())
    return valid and "decision" in certificate and not escalates_all(certificate)


def outcomes(result: Numbers) -> list[tuple[str, dict[Who, Numbers]]]:
    """Name and row per collaborator of all tasks together, then of each task; a task may bear any name."""
    found = collaborators(result)
    tasks = {who: c.get("tasks") or {} for who, c in found.items()}
    names = dict.fromkeys(name for own in tasks.values() for name in own)
    each = [(name, {who: own[name] for who, own in tasks.items() if name in own}) for name in names]
    return [(ALL_TASKS, {who: c["overall"] for who, c in found.items()}), *each]


def task_names(result: Numbers) -> list[str]:
    """Names of the tasks in the order of the accuracy matrix, which may know more tasks than were reported."""
    names = [name for name, _ in outcomes(result)[1:]]
    longest = max(len(c.get("accuracy_matrix") or ()) for c in collaborators(result).values())
    return [*names, *(f"task {index + 1}" for index in range(len(names), longest))]


def first_and_last(collaborator: Numbers) -> list[tuple[float, float] | None]:
    """Per task, accuracy when it was learned, R[j, j], and after the last task, R[T, j]; None where not measured."""
    matrix = collaborator.get("accuracy_matrix") or []
    ends = [(row[j], matrix[-1][j]) for j, row in enumerate(matrix)]
    return [(first, last) if known(first) and known(last) else None for first, last in ends]


def filled_bins(bins: Sequence[Numbers]) -> list[Numbers]:
    """The bins that hold rows."""
    return [b for b in bins if b.get("count") and known(b.get("confidence")) and known(b.get("accuracy"))]


def is_scored(trial: Numbers) -> bool:
    """Whether a trial has both objectives."""
    return known(trial.get("calls_saved")) and known(trial.get("area"))
