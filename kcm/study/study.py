"""A study: every network with every learner and memory size, on the stream of every seed; resumable cell by cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, field_validator

from kcm.collaborator.collaborator import NetworkConfig
from kcm.components import FAMILIES
from kcm.config import Config
from kcm.encoders import EncoderConfig
from kcm.errors import ConfigError
from kcm.study.aggregate import aggregate
from kcm.study.cell import Cell, Record, run_cell
from kcm.study.data import read_data
from kcm.study.equal_cpu import units_of_equal_cpu, with_units
from kcm.study.latency import width_of_equal_latency
from kcm.study.processor import for_small_steps
from kcm.study.records import Records, cell_fingerprint
from kcm.study.settings import Setting, Settings, StudyNetwork, has_memory
from kcm.study.stream import Stream
from kcm.tasks import TasksConfig

Match = Literal["parameters", "latency", "cpu"]


class StudyConfig(Config):
    """What is compared, and on what. Learners without a memory, and the nearest class mean, have one cell per seed."""

    tasks: TasksConfig = Field(description="The rows, and how they make tasks; the order is drawn by each seed.")
    feature_columns: tuple[str, ...] = Field((), description="Columns that are features already; patterns allowed.")
    encoder: EncoderConfig = Field(description="The frozen encoder of the rows.")
    networks: tuple[StudyNetwork, ...] = Field(("kan", "mlp"), min_length=1, description="Networks to compare.")
    learners: tuple[str, ...] = Field(("replay",), min_length=1, description="Learners to compare.")
    memory_per_class: tuple[float, ...] = Field((10.0,), min_length=1, description="Memory sizes, in rows per class.")
    num_seeds: int = Field(3, ge=1, description="Seeds of task order, classes of each task, weights and memory.")
    first_seed: int = Field(0, ge=0, description="The seeds are this and the next ones.")
    score_on: Literal["validate", "test"] = Field("test", description="Split on which R is measured.")
    match: Match = Field(
        "parameters",
        description="What the MLP has in common with a KAN; cpu: in closed form, its CPU time to learn and to answer.",
    )

    @field_validator("learners")
    @classmethod
    def _check_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            FAMILIES["learner"].find(name)
        return value

    @property
    def seeds(self) -> range:
        """The seeds of the study."""
        return range(self.first_seed, self.first_seed + self.num_seeds)

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


class Watcher(Protocol):
    """Receives the progress of a study."""

    def encoding(self, done: int, total: int) -> None:
        """Texts encoded."""

    def cell(self, done: int, total: int, name: str) -> None:
        """Cells finished, before the cell called `name` begins."""


def run_study(
    config: StudyConfig, settings: Settings, assets_dir: Path, storage: Path, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Run the cells that `storage` does not hold yet, and give the result: see `aggregate`.

    Raises KcmError for whatever is wrong with the data or the configuration before any text is encoded.
    """
    data = read_data(config.tasks, assets_dir, config.seeds, config.feature_columns, config.encoder.reads)
    planned = plan(config, settings, len(data.sequences[0].label_names))
    streams = data.streams(
        config.encoder, assets_dir, storage / "features", config.score_on, watcher.encoding if watcher else None
    )
    planned = matched(planned, config.match, streams[0], storage)
    by_seed = dict(zip(config.seeds, streams, strict=True))
    records = run_cells(planned, by_seed, Records(storage / "cells"), watcher)
    return {"data": data.described(), "match": config.match, "score_on": config.score_on, **aggregate(records)}


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
    planned: Sequence[tuple[Cell, Setting | None]],
    streams: Mapping[int, Stream],
    records: Records,
    watcher: Watcher | None = None,
) -> list[Record]:
    """The records of all cells, in their order; a cell that `records` holds is not run again."""
    finished = []
    for number, (cell, setting) in enumerate(planned):
        if watcher is not None:
            watcher.cell(number, len(planned), describe(cell))
        stream = streams[cell.seed]
        fingerprint = cell_fingerprint(cell, setting, stream.fingerprint)
        record = records.get(fingerprint)
        if record is None:
            with for_small_steps():
                record = run_cell(cell, setting, stream)
            records.put(fingerprint, record)
        finished.append(record)
    return finished


def describe(cell: Cell) -> str:
    """A cell in a few words."""
    memory = None if cell.memory_per_class is None else f"{cell.memory_per_class:g} per class"
    return ", ".join(filter(None, (cell.network, cell.learner, memory, f"seed {cell.seed}")))


def matched(
    planned: Sequence[tuple[Cell, Setting | None]], match: Match, stream: Stream, storage: Path
) -> list[tuple[Cell, Setting | None]]:
    """The same cells, with every MLP as wide as `match` says; what it stands for in closed form, too."""
    if match == "parameters":
        return list(planned)
    widened = []
    for cell, setting in planned:
        if cell.network == "mlp" and setting is not None:
            network = _matching(setting, match, stream, storage / match)
            setting = setting.model_copy(update={"network": network})
        widened.append((cell, setting))
    return widened


def _matching(setting: Setting, match: Match, stream: Stream, folder: Path) -> NetworkConfig:
    if match == "cpu":
        return with_units(setting.network, units_of_equal_cpu(setting, stream, folder).width)
    width = width_of_equal_latency(setting.network, stream.in_features, stream.num_labels, folder)
    return setting.network.model_copy(update={"mlp_width": width})
