"""What would stop a run after hours of encoding is refused when the rows have been read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kcm.config import parse_config
from kcm.errors import ConfigError, DataError
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.run import STAGES, run
from pipelines.stages.stage import run_stages
from pipelines.store.artefact import Artefact, ArtefactStore


def small_run(folder: Path, memory: int = 100, text_column: str = "text") -> RunConfig:
    """A run on a table that is written into the folder."""
    lines = [
        f"a sentence of {label} with number {row},{label}" for label in ("tea", "rain", "wool") for row in range(40)
    ]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]))
    source = {"kind": "files", "path": str(folder / "rows.csv"), "text_column": text_column, "label_column": "label"}
    values = {
        "name": "small",
        "storage_path": folder / "storage",
        "tasks": {"source": source, "scenario": "class_incremental", "num_tasks": 3},
        "encoder": {"model": "no/such-model"},
        "large": {"adapter": "classifier", "encoder": {"model": "no/such-model"}},
        "learner": {"name": "replay", "memory": memory},
    }
    return parse_config(RunConfig, values)


def stages(folder: Path, memory: int) -> Iterator[tuple[str, Artefact]]:
    config = small_run(folder, memory)
    context = Context(config.name, ArtefactStore(config.storage_path), config.assets_path)
    return run_stages([stage.of(config) for stage in STAGES], context)


def test_a_memory_without_room_for_every_label_is_refused_before_anything_is_encoded(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"memory = 2 is smaller than the number of labels, 3 \(learner\.memory\)"):
        next(stages(tmp_path, memory=2))
    stage, _ = next(stages(tmp_path, memory=3))
    assert stage == "tasks"


def test_a_column_that_is_not_there_is_reported_before_a_cluster_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.run.connected", lambda *_: pytest.fail("a cluster is started"))
    with pytest.raises(DataError, match=r"no column 'txet'.*Did you mean 'text'"):
        run(small_run(tmp_path, text_column="txet"))
    assert not (tmp_path / "storage").exists()
