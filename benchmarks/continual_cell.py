"""What one `replay` cell of `kcm benchmark continual` costs at its defaults, and what it gains by more passes.

Banking77 has 77 classes and some 8,720 train rows; it comes from a hub alone, so its size is cut from CLINC150: the
first 77 intents in the order of the alphabet, 150 rows of each. Rows are scored on validate, on held-out streams.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from continual_plan import ENCODER, HELD_OUT_SEED
from rich.console import Console
from rich.table import Table

from jobs.commands.benchmark import DEFAULT_SETTINGS
from kcm.config import parse_config
from kcm.metrics.intervals import paired_over_seeds
from kcm.study import Records, Settings, StudyConfig, read_data, run_cells
from kcm.study.study import plan

CLASSES, TASKS = 77, 7
FRACTIONS = {"train": 0.755, "validate": 0.205, "certify": 0.02, "test": 0.02}  # some 8,720 train rows
PASSES = (20, 10, 5)
MUST, AIM = 60, 15  # CPU seconds of a KAN's cell


def measure_cell(console: Console, clinc: Path, num_seeds: int, storage: Path, assets: Path) -> dict[str, Any]:
    """By passes and network: CPU seconds of learning and final average accuracy of every held-out stream.

    The record of a cell that was measured before is taken from `storage`, its seconds with it.
    """
    source = {"kind": "files", "path": str(_write_table(clinc, storage / "clinc-77.csv"))}
    tasks = {"source": source, "scenario": "class_incremental", "num_tasks": TASKS, "fractions": FRACTIONS}
    study = parse_config(
        StudyConfig,
        {
            "tasks": tasks,
            "encoder": {"model": ENCODER},
            "score_on": "validate",
            "first_seed": HELD_OUT_SEED,
            "num_seeds": num_seeds,
        },
    )
    read = read_data(study.tasks, assets, study.seeds)
    streams = read.streams(study.encoder, assets, storage / "features", study.score_on)
    default = Settings.load(DEFAULT_SETTINGS)
    found: dict[str, Any] = {
        "rows": sum(task.num_rows("train") for task in streams[0].tasks),
        "classes": streams[0].num_labels,
        "default_passes": default.setting("kan", "replay", 10, CLASSES).train.num_epochs,
    }
    for passes in PASSES:
        planned = plan(study, Settings({"default": {"train": {"num_epochs": passes}}}).over(default), CLASSES)
        by_network: dict[str, Any] = {network: {"cpu_s": [], "accuracy": []} for network in study.networks}
        by_seed = dict(zip(study.seeds, streams, strict=True))
        for record in run_cells(planned, by_seed, Records(storage / "cells")):
            by_network[record["network"]]["cpu_s"].append(sum(record["seconds_per_task"]))
            by_network[record["network"]]["accuracy"].append(float(np.mean(record["R"][-1])))
        found[f"{passes} passes"] = by_network
        console.print(f"{passes} passes done", style="dim")
    return found


def cell_view(found: dict[str, Any]) -> Table:
    """A row for every number of passes and network."""
    table = Table(
        title=f"`replay`, {found['rows']:,} train rows, {found['classes']} classes, without encoding;"
        f" must {MUST} CPU s, aim {AIM}; the default is {found['default_passes']} passes"
    )
    for heading in ("passes", "network", "CPU s of a cell", "accuracy, %", f"against {PASSES[0]} passes"):
        table.add_column(heading, justify="right")
    for passes in PASSES:
        for network, row in found[f"{passes} passes"].items():
            gain = paired_over_seeds(row["accuracy"], found[f"{PASSES[0]} passes"][network]["accuracy"])
            shown = "" if gain is None or passes == PASSES[0] else _interval(gain.estimate, gain.low, gain.high)
            accuracy = f"{100 * np.mean(row['accuracy']):.1f}"
            table.add_row(str(passes), network, f"{np.median(row['cpu_s']):.1f}", accuracy, shown)
    return table


def _interval(*points: float) -> str:
    estimate, low, high = (f"{100 * point:+.1f}" for point in points)
    return f"{estimate} ({low} to {high})"


def _write_table(clinc: Path, path: Path) -> Path:
    """The rows of the first intents, whatever their split, as a table."""
    parts = json.loads(clinc.read_text(encoding="utf-8"))
    rows = [(text, intent) for part in ("train", "val", "test") for text, intent in parts[part]]
    chosen = sorted({intent for _, intent in rows})[:CLASSES]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows(row for row in rows if row[1] in chosen)
    return path
