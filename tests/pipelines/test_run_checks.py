"""What would stop a run after hours of encoding is refused when the rows have been read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kcm.config import parse_config
from kcm.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.run import STAGES
from pipelines.stages.stage import run_stages
from pipelines.store.artefact import Artefact, ArtefactStore


def stages(folder: Path, memory: int) -> Iterator[tuple[str, Artefact]]:
    lines = [
        f"a sentence of {label} with number {row},{label}" for label in ("tea", "rain", "wool") for row in range(40)
    ]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]))
    source = {"kind": "files", "path": str(folder / "rows.csv"), "text_column": "text", "label_column": "label"}
    values = {
        "name": "small",
        "storage_path": folder / "storage",
        "tasks": {"source": source, "scenario": "class_incremental", "num_tasks": 3},
        "encoder": {"model": "no/such-model"},
        "large": {"adapter": "classifier", "encoder": {"model": "no/such-model"}},
        "learner": {"name": "replay", "memory": memory},
    }
    config = parse_config(RunConfig, values)
    context = Context(config.name, ArtefactStore(config.storage_path), config.assets_path)
    return run_stages([stage.of(config) for stage in STAGES], context)


def test_a_memory_without_room_for_every_label_is_refused_before_anything_is_encoded(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"memory = 2 is smaller than the number of labels, 3 \(learner\.memory\)"):
        next(stages(tmp_path, memory=2))
    stage, _ = next(stages(tmp_path, memory=3))
    assert stage == "tasks"
