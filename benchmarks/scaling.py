"""Rows per second of the train stage against workers and batch size, through Ray Train, and what limits them.

    python benchmarks/scaling.py [--workers 1 2 4] [--write]

Synthetic features lie on disk as the stages write them. Each worker has one thread. A step's rows are shared by all
workers, so a larger batch gives each of them more to compute for the same message: the share of the time spent in the
all-reduce, waiting for the slowest worker included, tells what more workers can gain. `--write` puts the figures into
benchmarks/results/scaling.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from machine import machine
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from kcm.collaborator.collaborator import NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners import FinetuneConfig
from kcm.learners.ranks import Ranks
from kcm.learners.training.config import TrainConfig
from kcm.tasks.columns import list_column
from kcm.tasks.shards import task_shards
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected
from pipelines.store.features import write_rows
from pipelines.training.worker import TaskFiles, TrainerConfig, TrainerPlan

RESULTS = Path(__file__).parent / "results" / "scaling.json"
IN_FEATURES, NUM_LABELS, HIDDEN = 384, 150, 64
NUM_ROWS, NUM_TEST_ROWS = 16_384, 256
STEPS = {64: 200, 512: 60, 4096: 12}  # by batch size: timed in each round
WARM_UP, ROUNDS = 3, 3


@dataclass(frozen=True)
class Cell:
    """Medians over rounds: rows trained on per second, by all workers together, and the all-reduce's share of time."""

    workers: int
    batch_size: int
    rows_per_second: float
    all_reduce_share: float


@dataclass(frozen=True)
class TimedRanks(Ranks):
    """Ranks that add up the seconds they spend in sums over all of them."""

    seconds: ClassVar[list[float]] = []

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Sum over ranks, timed."""
        started = time.perf_counter()
        super().sum_(tensors)
        self.seconds.append(time.perf_counter() - started)


def write_task(folder: Path) -> TaskFiles:
    """One task of random rows, as the stages `features` and `outcomes` leave it."""
    rng, count = np.random.default_rng(0), NUM_ROWS + NUM_TEST_ROWS
    ids, labels = [f"row-{row}" for row in range(count)], rng.integers(0, NUM_LABELS, count)
    features = {
        "id": ids,
        "split": ["train"] * NUM_ROWS + ["test"] * NUM_TEST_ROWS,
        "label": labels,
        "features": list_column(rng.normal(size=(count, IN_FEATURES)).astype(np.float32)),
    }
    probabilities = rng.dirichlet(np.ones(NUM_LABELS), count).astype(np.float32)
    outcomes = {"id": ids, "large_label": labels, "large_probabilities": list_column(probabilities)}
    places = folder / "features", folder / "outcomes"
    for place, columns in zip(places, (features, outcomes), strict=True):
        place.mkdir()
        write_rows(place, 0, pa.table(columns))
    return TaskFiles("random", *(tuple(task_shards(place, 0)) for place in places))


def plan(task: TaskFiles, batch_size: int) -> TrainerPlan:
    """A collaborator of the size that CLINC150 has, which never comes to the end of its task."""
    config = TrainerConfig(
        collaborators=("kcm",),
        network=NetworkConfig(hidden=(HIDDEN,)),
        learner=FinetuneConfig(),
        train=TrainConfig(batch_size=batch_size, num_epochs=1000),
        distill=DistillConfig(),
        seed=0,
    )
    return TrainerPlan(config, (task,), IN_FEATURES, NUM_LABELS)


def timed_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Entry point of a worker: seconds and all-reduce seconds of every round, by batch size, and when it began."""
    began = time.time()
    torch.set_num_threads(1)
    group = Ranks.current()
    ranks = TimedRanks(group.rank, group.world_size)
    rounds: dict[int, list[tuple[float, float]]] = {}
    for batch_size, steps in STEPS.items():
        trainer = plan(config["task"], batch_size).trainer("kcm", ranks)
        for _ in range(WARM_UP):
            trainer.step()
        for _ in range(ROUNDS):
            ranks.gather(None)
            ranks.seconds.clear()
            started = time.perf_counter()
            for _ in range(steps):
                trainer.step()
            rounds.setdefault(batch_size, []).append((time.perf_counter() - started, sum(ranks.seconds)))
    return {"began": began, "rounds": rounds}


def measure(workers: int, task: TaskFiles, storage: Path) -> tuple[float, list[Cell]]:
    """Seconds until the workers of a new trainer run, and a cell per batch size."""
    trainer = TorchTrainer(
        timed_worker,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(name=f"workers-{workers}", storage_path=str(storage)),
    )
    asked = time.time()
    found: dict[str, Any] = trainer.fit().return_value
    cells = []
    for batch_size, rounds in found["rounds"].items():
        rows = batch_size * STEPS[batch_size]
        speed = statistics.median(rows / seconds for seconds, _ in rounds)
        share = statistics.median(reduced / seconds for seconds, reduced in rounds)
        cells.append(Cell(workers, batch_size, round(speed, 1), round(share, 3)))
    return round(found["began"] - asked, 1), cells


def table(cells: Sequence[Cell], start_up: dict[int, float]) -> Table:
    """A row per batch size, a column per number of workers."""
    counts = list(start_up)
    shown = Table(title="Rows per second (speed-up; time in the all-reduce)", title_style="bold")
    shown.add_column("rows of a step", justify="right")
    for workers in counts:
        shown.add_column(f"{workers} worker{'s' * (workers > 1)}", justify="right")
    for batch_size in STEPS:
        row = {cell.workers: cell for cell in cells if cell.batch_size == batch_size}
        alone = row[counts[0]].rows_per_second
        shown.add_row(
            f"{batch_size:,}",
            *(
                f"{cell.rows_per_second:,.0f} ({cell.rows_per_second / alone:.2f}x; {cell.all_reduce_share:.0%})"
                for cell in row.values()
            ),
        )
    shown.add_row("start-up, s", *(f"{seconds:.1f}" for seconds in start_up.values()), style="dim")
    return shown


def limit(cells: Sequence[Cell], cores: int) -> str:
    """Where more workers stop to pay, in a sentence for every batch size."""
    sentences = []
    for batch_size in STEPS:
        row = [cell for cell in cells if cell.batch_size == batch_size]
        best = max(row, key=lambda cell: cell.rows_per_second)
        more = [cell for cell in row if cell.workers > best.workers]
        words = f"{batch_size:,} rows a step: fastest with {best.workers} of {row[-1].workers} workers"
        if more:
            why = f"{cores} cores" if more[0].workers > cores else "the message of every step"
            words += f"; {more[0].workers} are held back by {why} ({more[0].all_reduce_share:.0%} in the all-reduce)"
        sentences.append(words)
    return ".\n".join(sentences) + "."


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="numbers of workers, ascending")
    parser.add_argument("--write", action="store_true", help=f"write the figures to {RESULTS}")
    arguments = parser.parse_args()
    cores = os.cpu_count() or 1
    cluster = ClusterConfig(num_cpus=max(4, max(arguments.workers)))
    cells: list[Cell] = []
    start_up: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder, connected(cluster):
        task = write_task(Path(folder))
        for workers in arguments.workers:
            start_up[workers], found = measure(workers, task, Path(folder) / "storage")
            cells += found
    console = Console(width=120)
    console.print(table(cells, start_up))
    console.print(limit(cells, cores))
    if arguments.write:
        settings = {"in_features": IN_FEATURES, "num_labels": NUM_LABELS, "hidden": HIDDEN, "rows": NUM_ROWS}
        written = {
            "machine": {**machine(), "cores": cores},
            "settings": settings,
            "start_up_seconds": start_up,
            "cells": [asdict(cell) for cell in cells],
        }
        RESULTS.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
