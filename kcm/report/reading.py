"""How a run's result is read: who took part, which tasks there were, and what may be absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from kcm.report.formats import known

Numbers = Mapping[str, Any]
Who = Literal["kcm", "mcm"]

NAMES: dict[Who, str] = {"kcm": "KCM", "mcm": "MCM"}
ALL_TASKS = "All tasks"


def collaborators(result: Numbers) -> dict[Who, Numbers]:
    """The collaborators that `result` has: KCM, and MCM where it was trained too."""
    return {who: result[who] for who in NAMES if result.get(who)}


def certificate_of(result: Numbers) -> Numbers:
    """The certificate; empty where there is none."""
    return result.get("certificate") or {}


def is_certified(certificate: Numbers) -> bool:
    """Whether a loss is promised; escalating everything loses nothing, but promises nothing about keeping either."""
    return bool(certificate.get("valid")) and certificate.get("decision") in ("threshold", "keep_all")


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
