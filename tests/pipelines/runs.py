"""A run on a small file of rows, as its stages are given it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.progress import Reporter
from pipelines.store.artefact import ArtefactStore

SOURCE = {"kind": "files", "path": "rows.csv"}
SIDES: dict[str, Any] = {"encoder": {"model": "any"}, "large": {"adapter": "classifier"}}


def run_of(
    folder: Path, file: Path, reporter: Reporter | None = None, source: Mapping[str, Any] | None = None, **sections: Any
) -> tuple[RunConfig, Context]:
    """The configuration of a run on the rows of a file, as one task by default, and its context; its storage is new."""
    tasks = {"scenario": "class_incremental", "num_tasks": 1} | sections.pop("tasks", {})
    tasks["source"] = SOURCE | {"path": str(file)} | (source or {})
    values = {"name": "run", "storage_path": str(folder / "storage"), "tasks": tasks} | SIDES
    config = parse_config(RunConfig, values | sections)
    reporter = reporter or Reporter(Console(quiet=True))
    context = Context(config.name, ArtefactStore(config.storage_path), folder, reporter=reporter)
    context.run_folder.mkdir(parents=True, exist_ok=True)
    return config, context
