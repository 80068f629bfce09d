"""A payer reads the rows that a cascade keeps and gets wrong, a bounded number of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.stages import measured
from pipelines.stages.evaluate import OUTCOMES, Evaluate, EvaluatedArtefact
from pipelines.store.sequence import SequenceArtefact
from tests.outcome_files import read_outcomes, rows_where
from tests.pipelines.stages.test_prompts import CONFIG, Built, built, small_shards  # noqa: F401

pytestmark = pytest.mark.usefixtures("small_shards")
CLASSIFIER = {"adapter": "classifier", "encoder": {"model": "none"}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    """A run that keeps some wrong answers, since the large model is often wrong too."""
    monkeypatch.setitem(CONFIG, "train", {"num_epochs": 1, "learning_rate": 0.003})
    monkeypatch.setitem(CONFIG, "certificate", {"epsilon": 0.5})
    return built(tmp_path / "run", CLASSIFIER, ["none"])


def evaluated(run: Built) -> EvaluatedArtefact:
    artefact = Evaluate.of(run.config).build(run.done, run.context)  # type: ignore[attr-defined]
    assert isinstance(artefact, EvaluatedArtefact)
    return artefact


def test_kept_wrong_rows_stand_with_text_truth_and_both_answers(run: Built) -> None:
    artefact = evaluated(run)
    found: Any = artefact.kept_wrong
    assert found["num_rows"] == len(found["rows"]) > 0
    assert found["num_rows"] == sum(label["kept_wrong"] for label in artefact.result["kcm"]["labels"])
    table = rows_where(read_outcomes(artefact.file(f"kcm/{OUTCOMES}")), split="test", prompt="none")
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
