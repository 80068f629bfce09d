"""Rows of many shards are asked for under prompts shard by shard, away from the driver, and never twice."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kcm.tasks import shards
from kcm.tasks.preparation import build
from kcm.tasks.shards import task_shards, write_shards
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.stages import prompts
from pipelines.stages.features import Features
from pipelines.stages.prompts import ChoosePrompts
from pipelines.stages.tasks import Tasks
from pipelines.stages.train import Train
from pipelines.stages.tune import Tune
from pipelines.store.artefact import Recipe
from pipelines.store.outcomes import Answers, OutcomesArtefact, write_identity
from pipelines.training.artefacts import TunedArtefact
from tests.fake_upstream import FakeUpstream, Turn, label
from tests.pipelines.runs import run_of

LABELS = ("book", "cancel", "pay", "weather")
NUM_ROWS, SHARD_ROWS = 160, 12
CONFIG: dict[str, Any] = {
    "collaborators": ["kcm"],
    "encoder": {"kind": "precomputed", "column": "vector"},
    "train": {"num_epochs": 2, "learning_rate": 0.01},
    "certificate": {"epsilon": 0.2},
    "prompts": {"reliability": 0.9},
    "tasks": {"num_tasks": 2, "salt": 1},
}


@dataclass
class Built:
    """The artefacts before the stage, and the stage itself."""

    config: RunConfig
    context: Context
    done: dict[str, Any] = field(default_factory=dict)

    def prompted(self) -> TunedArtefact:
        """The artefact of the stage."""
        return ChoosePrompts.of(self.config).build(self.done, self.context)  # type: ignore[return-value]

    def asked_rows(self) -> list[dict[str, Any]]:
        """The rows but those of train, with their features and what the large model answers without a prompt."""
        found: list[dict[str, Any]] = []
        for task in range(2):
            parts = [self.done[kind].task(task).to_pylist() for kind in ("sequence", "features", "outcomes")]
            found += [{"task": task} | outcome | feature | row for row, feature, outcome in zip(*parts, strict=True)]
        return [row for row in found if row["split"] != "train"]


def built(folder: Path, large: dict[str, Any], modes: list[str]) -> Built:
    """A run up to the search, without Ray: vectors and answers are drawn, and a small model is trained on them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    vectors_ND = 2.0 * np.eye(len(LABELS))[np.arange(NUM_ROWS) % 4] + rng.normal(scale=1.2, size=(NUM_ROWS, 4))
    with (folder / "rows.jsonl").open("w") as file:
        for number, vector_D in enumerate(vectors_ND.tolist()):
            row = {"text": f"question {number}", "label": LABELS[number % 4], "vector": vector_D}
            file.write(json.dumps(row) + "\n")
    tune = {"prompt_modes": modes, "gates": ["confidence"], "scopes": ["global"], "num_trials": 1}
    run = Built(*run_of(folder, folder / "rows.jsonl", large=large, tune=tune, **CONFIG))
    sequence = run.done["sequence"] = Tasks.of(run.config).build({}, run.context)
    run.done["features"] = Features.of(run.config).build(run.done, run.context)

    def answer(target: Path) -> None:
        for task in range(2):
            rows = sequence.task(task)
            p_NC = rng.dirichlet(np.ones(len(LABELS)), size=len(rows)).astype(np.float32)
            right_N = rows["label"].to_numpy()
            p_NC[np.arange(len(rows)), right_N] += rng.random(len(rows)) < 0.75
            p_NC /= p_NC.sum(axis=1, keepdims=True)
            answers = Answers(p_NC.argmax(1), p_NC, np.full(len(rows), 0.5), np.zeros(len(rows), dtype=bool))
            write_shards(target, task, [answers.table(rows)])
        write_identity(target, "drawn", runtime=None)

    recipe = Recipe("outcomes", 1, {}, (sequence,))
    made, _ = run.context.store.build(recipe, lambda folder, scratch: answer(folder))
    run.done["outcomes"] = made.as_a(OutcomesArtefact)
    for stage in (Train, Tune):
        run.done[stage.writes.kind] = stage.of(run.config).build(run.done, run.context)
    return run


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a few rows, so that a small task has several, and some of them hold train rows alone."""
    for module in (shards, build):
        monkeypatch.setattr(module, "SHARD_ROWS", SHARD_ROWS)
    monkeypatch.setattr(shards, "GROUP_ROWS", 4)


def server(upstream: FakeUpstream) -> dict[str, Any]:
    return {"adapter": "openai", "model": "big", "base_url": upstream.base_url, "api_key_env": None, "max_retries": 0}


@pytest.fixture
def asked(tmp_path: Path, upstream: FakeUpstream, small_shards: None) -> Built:
    """A run whose large model is a server that follows a hint, else it says the first label that it may choose."""
    upstream.otherwise = lambda body: label(hint(body)[0] if soft(body) else LABELS[0])
    return built(tmp_path / "run", server(upstream), ["none", "soft", "hard"])


def soft(body: dict[str, Any]) -> bool:
    return "A smaller model suggests" in instructions(body)


def instructions(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"])


def hint(body: dict[str, Any]) -> tuple[str, str]:
    """The label that a question suggests, with the probability, as they are written."""
    words = instructions(body).split("A smaller model suggests ")[1].split()
    return words[0], words[3].removesuffix(".")


class Beside:
    """Stands for the processes beside the driver: what they and the driver read, file by file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, set[str]]] = []  # of each: the function, and the names of the files that it read
        self.by_driver: list[Path] = []
        self.splits: set[str] = set()
        self.largest = 0  # rows of one table
        self._reading: set[str] | None = None
        self._read = pq.read_table
        monkeypatch.setattr(pq, "read_table", self._watched)
        monkeypatch.setattr(prompts, "run_remotely", self._run)
        monkeypatch.setattr(prompts, "map_items", lambda work, items: [self._run(work, item) for item in items])

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._reading = set()
        found = function(*arguments)
        self.calls.append((getattr(function, "func", function).__name__, self._reading))
        self._reading = None
        return found

    def _watched(self, source: Any, **more: Any) -> pa.Table:
        table = self._read(source, **more)
        if "split" in table.column_names and Path(source).suffix == ".parquet":  # not the units of answers
            self.splits |= set(table["split"].to_pylist())
            self.largest = max(self.largest, len(table))
            if self._reading is None:
                self.by_driver.append(source)
            else:
                self._reading.add(Path(source).name)
        return table


def test_driver_reads_no_rows_and_workers_one_shard(asked: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: the driver reads no rows and nobody reads train rows or two shards at once."""
    names = set(asked.done["sequence"].all_shards)
    assert len(names) > 10
    asked.done["tuned"].plan.features.holding(0, "validate")  # the index of the rows is read once
    seen = Beside(monkeypatch)
    asked.prompted()
    assert seen.by_driver == []
    assert seen.splits == {"validate", "certify", "test"}
    assert seen.largest <= SHARD_ROWS
    written = [files for function, files in seen.calls if function == "write_questions"]
    assert all(len(files) == 1 for files in written)
    assert sorted(file for files in written for file in files) == sorted([*names, *names])  # soft and hard


def test_every_row_is_asked_under_the_hint_of_its_own_features(asked: Built, upstream: FakeUpstream) -> None:
    found = asked.prompted().load("kcm")
    said = {text: hint(body) for text, body in zip(upstream.texts(), upstream.requests, strict=True) if soft(body)}
    rows, names = asked.asked_rows(), asked.done["features"].names.labels
    assert said.keys() == {row["text"] for row in rows}
    for row in rows:
        _, small_1C = found.collaborator(torch.tensor([row["features"]]))
        p_C = torch.softmax(small_1C[0].detach().double() / found.policy.temperature, dim=0)
        name, probability = said[row["text"]]
        assert name == names[int(p_C.argmax())]
        assert float(probability) == pytest.approx(float(p_C.max()), abs=0.0051)


def test_rows_that_failed_under_a_prompt_are_asked_again(
    tmp_path: Path, upstream: FakeUpstream, small_shards: None
) -> None:
    upstream.otherwise = lambda body: label(LABELS[0])
    large = server(upstream) | {"max_failed": 0.1}
    run = built(tmp_path / "run", large, ["none", "soft"])
    upstream.plan(*[Turn(503, "gone")] * 3)
    first = run.prompted()
    assert first.asked("kcm")["soft"]["failed"] == first.asked("kcm")["soft"]["waiting"] == 3
    num_asked = len(upstream.requests)
    second = run.prompted()
    assert len(upstream.requests) == num_asked + 1 + 3  # a question of no row, and those that had failed
    assert second.asked("kcm")["soft"]["failed"] == 0
    assert second.fingerprint != first.fingerprint
    assert run.prompted().fingerprint == second.fingerprint
    upstream.otherwise = lambda body: Turn(503, "gone")
    assert run.prompted().fingerprint == second.fingerprint
    assert len(upstream.requests) == num_asked + 1 + 3


def test_a_classifier_is_masked_shard_by_shard_and_asked_nothing(
    tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = built(tmp_path / "run", {"adapter": "classifier", "encoder": {"model": "none"}}, ["none", "hard"])
    seen = Beside(monkeypatch)
    tuned = run.prompted()
    assert seen.by_driver == []
    candidates = tuned.load("kcm").prompts.candidates  # type: ignore[union-attr]
    assert 2 <= len(candidates) < len(LABELS)
    folder = tuned.folder / "kcm" / "hard"
    answers = pa.concat_tables([pq.read_table(file) for task in range(2) for file in task_shards(folder, task)])
    rows = run.asked_rows()
    assert answers["id"].to_pylist() == [row["id"] for row in rows]
    for answer, row in zip(answers.to_pylist(), rows, strict=True):
        assert answer["large_label"] == max(candidates, key=lambda one: row["large_probabilities"][one])
        assert answer["large_cost"] == 0.5
