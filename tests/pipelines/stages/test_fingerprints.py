"""Finished work is found again wherever and however fast a run works: nothing is asked for, or looked at, twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kcm.config import parse_config
from kcm.encoders.text import TextEncoderConfig
from kcm.large.adapters.openai import OpenAiConfig
from pipelines.cluster.config import ClusterConfig
from pipelines.config import RunConfig
from pipelines.run import STAGES
from pipelines.stages.stage import Stage
from pipelines.store.artefact import MANIFEST, Artefact, Recipe, write_json
from pipelines.store.features import FACTS
from pipelines.store.outcomes import write_identity
from pipelines.store.sequence import Names, SequenceArtefact

BASE: dict[str, Any] = {
    "name": "golden",
    "tasks": {},
    "encoder": {"model": "small", "pooling": "mean", "batch_size": 7},
    "learner": {"name": "replay"},
    "tune": {"num_trials": 3, "prompt_modes": ["none"], "gates": ["confidence", "signals"]},
    "seed": 3,
    "collaborators": ["kcm", "mcm"],
    "cluster": {"num_workers": 1},
}
SERVER = {"adapter": "openai", "model": "big", "api_key_env": None, "max_calls": 7}


class Fingerprints:
    """As much of a run as it takes to know its fingerprints; nothing is computed."""

    cluster = ClusterConfig()
    tracking = None

    def __init__(self, folder: Path) -> None:
        self.assets_path, self.found = folder, dict[str, str]()
        self.done: dict[str, Artefact] = {"sequence": SequenceArtefact("tasks", "tasks-fp", folder / "tasks/tasks-fp")}
        self._root = folder
        self.store = SimpleNamespace(find=lambda recipe: None)  # nothing is finished

    def build(self, recipe: Recipe, write: Callable[..., None], *, label: str = "", **more: Any) -> Artefact:
        folder = self._root / recipe.stage / recipe.fingerprint
        write_json(folder / MANIFEST, recipe.as_json())
        write_identity(folder, "identity")
        write_json(folder / FACTS, {"runtime": None, "preview": {}})
        self.found[f"{label}/{recipe.stage}" if label else recipe.stage] = recipe.fingerprint
        return Artefact(recipe.stage, recipe.fingerprint, folder)

    def of(self, *stages: Stage) -> dict[str, str]:
        for stage in stages:
            if stage.applies():
                self.done[stage.writes.kind] = stage.build(self.done, self)
        return self.found


@pytest.fixture
def fingerprints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fingerprints:
    monkeypatch.setattr(TextEncoderConfig, "identity", lambda self, assets: f"identity of {self.kind}")
    monkeypatch.setattr(OpenAiConfig, "identity", lambda self, *given, **more: "identity")
    monkeypatch.setattr(SequenceArtefact, "names", Names(("t",), ("a", "b"), None))
    return Fingerprints(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster": {"num_workers": 5, "num_encoders": 9}},
        {"assets_path": "/elsewhere"},
        {"encoder": {"model": "small", "pooling": "mean", "batch_size": 8}},
        {"encoder": {"model": "small", "pooling": "mean", "batch_size": 7, "runtime": "onnx"}},
        {"encoder": {"model": "small", "pooling": "mean", "batch_size": 7, "precision": "float32"}},
        {"large": SERVER | {"num_concurrent": 9}},
        {"tracking": {"uri": "sqlite:////tmp/another.db"}},
    ],
)
def test_where_and_how_fast_the_work_runs_changes_no_fingerprint(changes, fingerprints, tmp_path) -> None:
    first, second = (parse_config(RunConfig, BASE | {"large": SERVER} | more) for more in ({}, changes))
    stages = STAGES[1:]
    before = dict(fingerprints.of(*(stage.of(first) for stage in stages)))
    again = Fingerprints(tmp_path / "again")
    assert again.of(*(stage.of(second) for stage in stages)) == before


def test_every_stage_reads_what_an_earlier_one_writes_and_takes_its_part_by_name() -> None:
    written, run = set[str](), parse_config(RunConfig, BASE | {"large": SERVER})
    for stage in STAGES:
        assert set(stage.reads) <= written
        assert all(hasattr(run, name) for name in set(stage.model_fields) - {"space", "choose", "updated"})
        written.add(stage.writes.kind)
