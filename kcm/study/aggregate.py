"""From the records of a study's cells to its result: every metric per seed, over seeds, and paired between networks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from kcm.metrics.continual import summarise
from kcm.metrics.intervals import paired_over_seeds
from kcm.study.cell import Record

Place = tuple[str, str | None, float | None]
"""Network, learner and memory per class: what a row of the result is about."""

CLASS_SIZES = ("many", "medium", "few", "head", "middle", "tail")
JOINT = "joint"


def aggregate(records: Sequence[Record], *, against: str = "kan") -> dict[str, Any]:
    """The result: `cells` with figures per seed and over seeds, and `differences` of `against` minus each network."""
    joint = {(r["network"], r["seed"]): r["R"] for r in records if r["learner"] == JOINT}
    places: dict[Place, list[dict[str, Any]]] = {}
    first: dict[Place, Record] = {}
    for record in records:
        place = (record["network"], record["learner"], record["memory_per_class"])
        first.setdefault(place, record)
        places.setdefault(place, []).append(figures(record, joint.get((record["network"], record["seed"]))))
    return {
        "cells": [
            {
                **_named(place),
                "num_parameters": first[place]["num_parameters"],
                "kind": first[place].get("kind"),
                "setting": first[place].get("setting"),
                "per_seed": rows,
                "aggregated": {metric: over_seeds([row[metric] for row in rows]) for metric in _metrics(rows)},
            }
            for place, rows in places.items()
        ],
        "differences": _differences(places, against),
    }


def figures(record: Record, joint: Sequence[Sequence[float]] | None = None) -> dict[str, Any]:
    """The metrics of one cell, and what they were computed from; `joint` is the R of joint training."""
    metrics = summarise(record["R"], record["b"], joint)
    seconds, num_bytes = record["seconds_per_task"], record["memory_bytes_per_task"]
    return {
        "seed": record["seed"],
        **metrics,
        **{size: record[size] for size in CLASS_SIZES},
        "seconds": float(np.mean(seconds)),
        "memory_bytes": num_bytes[-1],
        "task_order": record["task_order"],
        "R": record["R"],
        "b": record["b"],
        "seconds_per_task": seconds,
        "memory_bytes_per_task": num_bytes,
    }


def over_seeds(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean, standard error and 95% t interval over the seeds that have a figure; None where none has one.

    A single seed has neither standard error nor interval.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    interval = paired_over_seeds(known, np.zeros(len(known)))
    error = float(np.std(known, ddof=1) / math.sqrt(len(known))) if len(known) > 1 else None
    return {
        "mean": float(np.mean(known)),
        "standard_error": error,
        "interval": None if interval is None else [interval.low, interval.high],
        "degrees_of_freedom": None if interval is None else interval.degrees_of_freedom,
        "num_seeds": len(known),
    }


def flatness(values: Sequence[float], share: float = 0.1) -> float | None:
    """Mean of the last tenth of the tasks over that of the first, the very first left out; None for too few tasks.

    About 1 when the cost of a task does not grow with the number of tasks before it. The first warms up.
    """
    later = values[1:]
    count = max(1, int(len(later) * share))
    if len(later) < 2 or not np.mean(later[:count]):
        return None
    return float(np.mean(later[-count:]) / np.mean(later[:count]))


def _differences(places: Mapping[Place, list[dict[str, Any]]], against: str) -> list[dict[str, Any]]:
    found = []
    for (network, learner, memory), rows in places.items():
        reference = places.get((against, learner, memory))
        if reference is None or network == against:
            continue
        other = {row["seed"]: row for row in rows}
        pairs = [(row, other[row["seed"]]) for row in reference if row["seed"] in other]
        found.append(
            {
                "first": against,
                "second": network,
                "learner": learner,
                "memory_per_class": memory,
                **{metric: _paired([(a[metric], b[metric]) for a, b in pairs]) for metric in _metrics(rows)},
            }
        )
    return found


def _paired(pairs: Sequence[tuple[float | None, float | None]]) -> dict[str, Any] | None:
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    interval = paired_over_seeds([a for a, _ in known], [b for _, b in known])
    return None if interval is None else asdict(interval)


def _metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [key for key, value in rows[0].items() if key != "seed" and not isinstance(value, list) and key != "b"]


def _named(place: Place) -> dict[str, Any]:
    return dict(zip(("network", "learner", "memory_per_class"), place, strict=True))
