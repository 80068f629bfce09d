"""A payer reads the rows that a cascade keeps and gets wrong, a bounded number of them."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcm.tasks import shards
from kcm.tasks.preparation import build
from kcm.tasks.shards import write_shards
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.stages import measured
from pipelines.stages.evaluate import OUTCOMES, Evaluate, EvaluatedArtefact
from pipelines.stages.features import Features
from pipelines.stages.tasks import Tasks
from pipelines.stages.train import Train
from pipelines.stages.tune import Tune
from pipelines.store.artefact import Recipe
from pipelines.store.outcomes import Answers, OutcomesArtefact, write_identity
from pipelines.store.sequence import SequenceArtefact
from tests.outcome_files import read_outcomes, rows_where
from tests.pipelines.runs import run_of

pytestmark = pytest.mark.usefixtures("small_shards")
CLASSIFIER = {"adapter": "classifier", "encoder": {"model": "none"}}
LABELS = ("book", "cancel", "pay", "weather")
NUM_ROWS, SHARD_ROWS = 160, 12
CONFIG: dict[str, Any] = {
    "collaborators": ["kcm"],
    "encoder": {"kind": "precomputed", "column": "vector"},
    "train": {"num_epochs": 2, "learning_rate": 0.01},
    "certificate": {"epsilon": 0.2},
    "tasks": {"num_tasks": 2, "salt": 1},
}


@dataclass
class Built:
    """The artefacts before the stage, and the stage itself."""

    config: RunConfig
    context: Context
    done: dict[str, Any] = field(default_factory=dict)

    def asked_rows(self) -> list[dict[str, Any]]:
        """The rows but those of train, with their features and answers."""
        found: list[dict[str, Any]] = []
        for task in range(2):
            parts = [self.done[kind].task(task).to_pylist() for kind in ("sequence", "features", "outcomes")]
            found += [{"task": task} | outcome | feature | row for row, feature, outcome in zip(*parts, strict=True)]
        return [row for row in found if row["split"] != "train"]


def built(folder: Path) -> Built:
    """A run up to the search, without Ray: vectors and answers are drawn, and a small model is trained on them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    vectors_ND = 2.0 * np.eye(len(LABELS))[np.arange(NUM_ROWS) % 4] + rng.normal(scale=1.2, size=(NUM_ROWS, 4))
    with (folder / "rows.jsonl").open("w") as file:
        for number, vector_D in enumerate(vectors_ND.tolist()):
            row = {"text": f"question {number}", "label": LABELS[number % 4], "vector": vector_D}
            file.write(json.dumps(row) + "\n")
    tune = {"gates": ["confidence"], "scopes": ["global"], "num_trials": 1}
    run = Built(*run_of(folder, folder / "rows.jsonl", large=CLASSIFIER, tune=tune, **CONFIG))
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


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    """A run that keeps some wrong answers, since the large model is often wrong too."""
    monkeypatch.setitem(CONFIG, "train", {"num_epochs": 1, "learning_rate": 0.003})
    monkeypatch.setitem(CONFIG, "certificate", {"epsilon": 0.5})
    return built(tmp_path / "run")


def evaluated(run: Built) -> EvaluatedArtefact:
    artefact = Evaluate.of(run.config).build(run.done, run.context)  # type: ignore[attr-defined]
    assert isinstance(artefact, EvaluatedArtefact)
    return artefact


def test_kept_wrong_rows_stand_with_text_truth_and_both_answers(run: Built) -> None:
    artefact = evaluated(run)
    found: Any = artefact.kept_wrong
    assert found["num_rows"] == len(found["rows"]) > 0
    assert found["num_rows"] == sum(label["kept_wrong"] for label in artefact.result["kcm"]["labels"])
    table = rows_where(read_outcomes(artefact.file(f"kcm/{OUTCOMES}")), split="test")
    text = {row["id"]: row["text"] for row in run.asked_rows()}
    for row in found["rows"]:
        (place,) = np.flatnonzero(table.id == row["id"])
        assert row["text"] == text[row["id"]]
        answers = table.label[place], table.small_label[place], table.large_label[place]
        assert [row[name] for name in ("label", "small", "large")] == [table.label_names[each] for each in answers]
        assert row["label"] != row["small"]


def test_of_many_rows_and_of_long_texts_the_beginning_is_shown(run: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "MAX_ROWS", 1)
    monkeypatch.setattr(measured, "MAX_CHARS", 8)
    found: Any = evaluated(run).kept_wrong
    assert found["num_rows"] > 1
    assert [row["text"] for row in found["rows"]] == ["questio…"]


def test_texts_that_may_have_to_be_forgotten_are_not_copied(run: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SequenceArtefact, "grown_tasks", frozenset(run.done["features"].names.tasks))
    found: Any = evaluated(run).kept_wrong
    assert found["rows"]
    assert {row["text"] for row in found["rows"]} == {""}
