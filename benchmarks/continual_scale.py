"""What a task costs after hundreds of others: CPU time and bytes of learner state, by learner, on made-up features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from study.cell import Cell, run_cell
from study.data import Stream
from study.settings import LEARNERS, Settings, has_memory
from study.study import flatness

from kcm.learners.base import Batch
from kcm.learners.training.stream import TensorRows

FEATURES, LABELS, TRAIN_ROWS, TEST_ROWS = 64, 10, 64, 2
JOINT_TASKS = 40  # joint training of task i reads i tasks, so it gets fewer of them
SETTINGS = Settings(
    {"default": {"train": {"num_epochs": 2, "batch_size": 32}}, "replay": {"learner": {"batch_size": 32}}}
)
MEMORY_PER_CLASS = 20


def measure_scale(console: Console, num_tasks: int) -> dict[str, Any]:
    """For every learner: the CPU milliseconds and KiB of a task, the first tenth of them, the last, and the ratio."""
    found = {}
    for learner in LEARNERS:
        count = min(num_tasks, JOINT_TASKS) if learner == "joint" else num_tasks
        memory = MEMORY_PER_CLASS if has_memory(learner) else None
        setting = SETTINGS.setting("kan", learner, memory, LABELS)
        record = run_cell(Cell("kan", learner, memory, 0), setting, synthetic_stream(count))
        found[learner] = {
            "num_tasks": count,
            "ms": _costs(record["seconds_per_task"], 1e3),
            "kib": _costs(record["memory_bytes_per_task"], 1 / 1024),
        }
        console.print(f"{learner} done", style="dim")
    return found


def scale_view(found: dict[str, Any]) -> Table:
    """A row for every learner."""
    table = Table(title=f"Tasks of {TRAIN_ROWS} rows, KAN; means over the first and the last tenth")
    for heading in ("learner", "tasks", "CPU ms, first", "last", "ratio", "KiB, first", "last", "ratio"):
        table.add_column(heading, justify="right")
    for learner, costs in found.items():
        figures = [
            "–" if costs[unit][key] is None else f"{costs[unit][key]:.{digits}f}"
            for unit in ("ms", "kib")
            for key, digits in (("first", 1), ("last", 1), ("ratio", 2))
        ]
        table.add_row(learner, str(costs["num_tasks"]), *figures)
    return table


def synthetic_stream(num_tasks: int) -> Stream:
    """Domain-incremental: the same classes around means that every task moves a little."""
    generator = np.random.default_rng(0)
    means_CD = generator.normal(size=(LABELS, FEATURES))

    def split(task: int, name: str, count: int) -> tuple[list[str], Batch]:
        labels = np.arange(count) % LABELS
        features = means_CD[labels] + moved_CD[labels] + generator.normal(size=(count, FEATURES))
        ids = [f"{task}-{name}-{row}" for row in range(count)]
        nothing = torch.full((count, 1), torch.nan)
        return ids, Batch(torch.from_numpy(features).float(), torch.from_numpy(labels), nothing, torch.ones(count))

    tasks = []
    for task in range(num_tasks):
        moved_CD = 0.5 * generator.normal(size=(LABELS, FEATURES))
        splits = {"train": split(task, "train", TRAIN_ROWS), "test": split(task, "test", TEST_ROWS)}
        tasks.append(TensorRows(f"task-{task}", splits))
    return Stream(tasks, LABELS, FEATURES, "synthetic")


def _costs(values: list[float], scale: float) -> dict[str, float | None]:
    """First, last and their ratio; the very first task warms up."""
    later = np.asarray(values[1:]) * scale
    count = max(1, len(later) // 10)
    return {
        "first": float(later[:count].mean()),
        "last": float(later[-count:].mean()),
        "ratio": flatness(values),
    }
