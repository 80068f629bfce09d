"""A study: every network with every learner and memory size, on the stream of every seed; resumable cell by cell."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from pydantic import Field, field_validator
from rich.console import Console
from rich.progress import track

from kcm.config import Config
from kcm.encoders import EncoderConfig
from kcm.errors import ConfigError
from kcm.metrics.continual import average_accuracy, summarise
from kcm.tasks import TasksConfig
from pipelines.store.artefact import write_json

from .cell import Cell, Record, cell_fingerprint, for_small_steps, run_cell
from .data import Stream, read_data
from .seeds import paired_over_seeds
from .settings import Setting, Settings, StudyNetwork, class_of, has_memory


class StudyConfig(Config):
    """What is compared, and on what. Learners without a memory, and the nearest class mean, have one cell per seed."""

    tasks: TasksConfig = Field(description="The rows and their tasks; each seed draws the order.")
    feature_columns: tuple[str, ...] = Field((), description="Columns that are features already; patterns allowed.")
    encoder: EncoderConfig = Field(description="The frozen encoder of the rows.")
    networks: tuple[StudyNetwork, ...] = Field(("kan", "mlp"), min_length=1, description="Networks to compare.")
    learners: tuple[str, ...] = Field(("replay",), min_length=1, description="Learners to compare.")
    memory_per_class: tuple[float, ...] = Field((10.0,), min_length=1, description="Memory sizes, in rows per class.")
    num_seeds: int = Field(3, ge=1, description="Seeds of task order, classes of each task, weights and memory.")

    @field_validator("learners")
    @classmethod
    def _check_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            class_of(name)
        return value

    @property
    def seeds(self) -> range:
        """The seeds of the study."""
        return range(self.num_seeds)

    def cells(self) -> Iterator[Cell]:
        """All cells, seed by seed, so that an interrupted study has whole seeds."""
        for seed in self.seeds:
            for network in dict.fromkeys(self.networks):
                if network == "ncm":
                    yield Cell(network, None, None, seed)
                    continue
                for learner in dict.fromkeys(self.learners):
                    for memory in dict.fromkeys(self.memory_per_class) if has_memory(learner) else [None]:
                        yield Cell(network, learner, memory, seed)


def run_study(config: StudyConfig, settings: Settings, assets_dir: Path, storage: Path) -> dict[str, Any]:
    """Run the cells that `storage` does not hold yet, and give the result: see `aggregate`.

    Raises KcmError for whatever is wrong with the data or the configuration before any text is encoded.
    """
    data = read_data(config.tasks, assets_dir, config.seeds, config.feature_columns, config.encoder.reads)
    planned = plan(config, settings, len(data.sequences[0].label_names))
    streams = data.streams(config.encoder, assets_dir, storage / "features")
    by_seed = dict(zip(config.seeds, streams, strict=True))
    records = run_cells(planned, by_seed, storage / "cells")
    return {"data": data.described(), **aggregate(records)}


def plan(config: StudyConfig, settings: Settings, num_labels: int) -> list[tuple[Cell, Setting | None]]:
    """Every cell with its setting.

    Raises ConfigError for a memory that cannot hold a row of every class, and for a network that its learner cannot
    train.
    """
    for memory in config.memory_per_class:
        if memory < 0 or 0 < memory < 1:
            raise ConfigError(
                f"memory_per_class = {memory:g} is a memory of {round(memory * num_labels)} rows,"
                f" smaller than the number of classes, {num_labels}",
                hint="Give at least 1, or 0 for no memory",
            )
    planned = [(cell, _setting(cell, settings, num_labels)) for cell in config.cells()]
    for _, setting in planned:
        if setting is not None:
            setting.learner.check_network(setting.network)
    return planned


def _setting(cell: Cell, settings: Settings, num_labels: int) -> Setting | None:
    if cell.network == "ncm" or cell.learner is None:
        return None
    return settings.setting(cell.network, cell.learner, cell.memory_per_class, num_labels)


def run_cells(
    planned: Sequence[tuple[Cell, Setting | None]], streams: Mapping[int, Stream], folder: Path, num_processes: int = 1
) -> list[Record]:
    """The records of all cells, in their order.

    A finished cell is a JSON file in `folder`, named by a fingerprint of all that decides its figures, and is not run
    again. Any number of studies may share the folder, also at the same time.
    """
    records = Parallel(num_processes, return_as="generator")(
        delayed(_record)(cell, setting, streams[cell.seed], folder) for cell, setting in planned
    )
    return list(track(records, "cells", len(planned), console=Console(stderr=True), transient=True))


def _record(cell: Cell, setting: Setting | None, stream: Stream, folder: Path) -> Record:
    file = folder / f"{cell_fingerprint(cell, setting, stream.fingerprint)}.json"
    if not file.exists():
        with for_small_steps():
            write_json(file, run_cell(cell, setting, stream))
    return json.loads(file.read_text(encoding="utf-8"))


Place = tuple[str, str | None, float | None]
PLACE = ("network", "learner", "memory_per_class")
"""What a row of the result is about."""

CLASS_SIZES = ("many", "medium", "few", "head", "middle", "tail")
JOINT = "joint"


def aggregate(records: Sequence[Record], *, against: str = "kan") -> dict[str, Any]:
    """The result: `cells` with figures per seed and over seeds, and `differences` of `against` minus each network."""
    joint = {(r["network"], r["seed"]): r["R"] for r in records if r["learner"] == JOINT}
    places: dict[Place, list[dict[str, Any]]] = {}
    first: dict[Place, Record] = {}
    for record in records:
        place = tuple(record[name] for name in PLACE)
        first.setdefault(place, record)
        places.setdefault(place, []).append(figures(record, joint.get((record["network"], record["seed"]))))
    return {
        "cells": [
            {
                **dict(zip(PLACE, place, strict=True)),
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
    """The metrics of one cell, and their inputs; `joint` is the R of joint training."""
    seconds, num_bytes = record["seconds_per_task"], record["memory_bytes_per_task"]
    return {
        "seed": record["seed"],
        **summarise(record["R"], record["b"]),
        "gap_to_joint": joint and average_accuracy(joint) - average_accuracy(record["R"]),
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
    """Mean, standard error and 95% t interval over the seeds that have a figure; None without any.

    A single seed has neither standard error nor interval.
    """
    numbers = [value for value in values if value is not None]
    if not numbers:
        return None
    interval = paired_over_seeds(numbers, np.zeros(len(numbers)))
    error = float(np.std(numbers, ddof=1) / math.sqrt(len(numbers))) if len(numbers) > 1 else None
    return {
        "mean": float(np.mean(numbers)),
        "standard_error": error,
        "interval": None if interval is None else [interval.low, interval.high],
        "degrees_of_freedom": None if interval is None else interval.degrees_of_freedom,
        "num_seeds": len(numbers),
    }


def _differences(places: Mapping[Place, list[dict[str, Any]]], against: str) -> list[dict[str, Any]]:
    differences = []
    for (network, learner, memory), rows in places.items():
        reference = places.get((against, learner, memory))
        if reference is None or network == against:
            continue
        rows_by_seed = {row["seed"]: row for row in rows}
        pairs = [(row, rows_by_seed[row["seed"]]) for row in reference if row["seed"] in rows_by_seed]
        differences.append(
            {
                "first": against,
                "second": network,
                "learner": learner,
                "memory_per_class": memory,
                **{metric: _paired([(a[metric], b[metric]) for a, b in pairs]) for metric in _metrics(rows)},
            }
        )
    return differences


def _paired(pairs: Sequence[tuple[float | None, float | None]]) -> dict[str, Any] | None:
    pairs_with_values = [(a, b) for a, b in pairs if a is not None and b is not None]
    interval = paired_over_seeds([a for a, _ in pairs_with_values], [b for _, b in pairs_with_values])
    return None if interval is None else asdict(interval)


def _metrics(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [key for key, value in rows[0].items() if key != "seed" and not isinstance(value, list) and key != "b"]
