"""The output of a study: a table of networks and learners, and one of their paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

Numbers = Mapping[str, Any]

_MEASURES = ("average_accuracy", "learning_accuracy", "forgetting_first", "gap_to_joint")
_TAIL = ("head", "middle", "tail")


def study_view(result: Numbers) -> str:
    """Cells in %, average accuracy ± half its 95% t interval; paired differences in points; what the data were."""
    data = result["data"]
    measures = (*_MEASURES, *(_TAIL if data["long_tail"] else ()))
    cells = pd.DataFrame(_cell(cell, measures) for cell in result["cells"])
    differences = pd.DataFrame(_difference(row) for row in result["differences"] if row["average_accuracy"])
    rows = ", ".join(f"{number:,} {split}" for split, number in data["rows"].items())
    left_out = f"; {len(data['rows_left_out'])} rows left out" if data["rows_left_out"] else ""
    described = f"{data['name']}: {data['num_classes']} classes in {data['num_tasks']} tasks, {rows} rows{left_out}"
    tables = (table.dropna(axis=1, how="all") for table in (cells, differences) if len(table))
    return "\n\n".join([*(table.to_string(index=False, na_rep="–") for table in tables), described])


def _cell(cell: Numbers, measures: tuple[str, ...]) -> dict[str, object]:
    figures, average = cell["aggregated"], cell["aggregated"]["average_accuracy"]
    return {
        **{name: cell[name] for name in ("network", "learner", "memory_per_class")},
        **{name: figures[name] and f"{100 * figures[name]['mean']:.1f}" for name in measures},
        "±": average["interval"] and f"{100 * (average['interval'][1] - average['mean']):.1f}",
        "parameters": f"{cell['num_parameters']:,}",
        "CPU s a task": f"{figures['seconds']['mean']:.2f}",
        "memory KiB": f"{figures['memory_bytes']['mean'] / 1024:,.0f}",
        "seeds": len(cell["per_seed"]),
    }


def _difference(row: Numbers) -> dict[str, object]:
    numbers = row["average_accuracy"]
    return {
        "difference": f"{row['first']} - {row['second']}",
        **{name: row[name] for name in ("learner", "memory_per_class")},
        **{name: f"{100 * numbers[name]:+.1f}" for name in ("estimate", "low", "high")},
        "degrees_of_freedom": numbers["degrees_of_freedom"],
    }
