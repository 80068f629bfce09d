"""`kcm init` writes a configuration that the first stage accepts, from tables that nobody tuned on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app
from kcm.config import load_config
from kcm.tasks import build_sequence
from pipelines.config import RunConfig


def intents(num_rows: int, num_labels: int = 10) -> pd.DataFrame:
    label = np.arange(num_rows) % num_labels
    return pd.DataFrame(
        {
            "id": [f"row-{number}" for number in range(num_rows)],
            "utterance": [f"I need help with matter {kind}, case {number}" for number, kind in enumerate(label)],
            "intent": [f"intent_{kind}" for kind in label],
        }
    )


def init(*words: object) -> Result:
    return CliRunner().invoke(app, ["init", *map(str, words)])


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_of_intents_gives_a_configuration_that_works(at: Path) -> None:
    intents(1000).to_csv("intents.csv", index=False)
    shown = init("intents.csv", "--json", "out.json")
    assert (shown.exit_code, shown.stdout) == (0, "intents.yaml\n"), shown.stderr
    assert "1,000 rows, 10 labels" in shown.stderr
    assert "a certificate is possible" in shown.stderr
    config = load_config(RunConfig, at / "intents.yaml")
    sequence = build_sequence(config.tasks, config.assets_path, config.seed)
    assert len(sequence.tasks) == 1
    assert len(sequence.label_names) == 10
    assert config.certificate.epsilon == 0.02
    result = json.loads((at / "out.json").read_text())
    assert (result["columns"]["text"], result["columns"]["label"]) == ("utterance", "intent")
    assert result["rows"] == 1000


def test_epsilon_is_what_few_rows_can_certify(at: Path) -> None:
    intents(300, 4).to_csv("few.csv", index=False)
    shown = init("few.csv")
    config = load_config(RunConfig, at / "few.yaml")
    assert 0.02 < config.certificate.epsilon <= 0.05
    assert "a certificate is possible" in shown.stderr


def test_too_few_rows_are_warned_of(at: Path) -> None:
    intents(60, 2).to_csv("tiny.csv", index=False)
    assert "everything would be escalated. Use about" in init("tiny.csv").stderr


def test_answers_in_the_table_become_a_recorded_large_model(at: Path) -> None:
    frame = intents(400)
    frame.assign(gpt=np.roll(frame["intent"], 1)).to_csv("answered.csv", index=False)
    assert init("answered.csv").exit_code == 0
    config = load_config(RunConfig, at / "answered.yaml")
    assert config.large.adapter == "recorded"
    assert config.large.build([f"intent_{kind}" for kind in range(10)], at).answer([]) == []
    assert "cannot answer inputs that are not there" in (at / "answered.yaml").read_text()
    assert init("answered.csv", "--large", "none", "--output", "other.yaml").exit_code == 0
    assert load_config(RunConfig, at / "other.yaml").large.adapter == "classifier"


def test_a_table_with_domains_gives_a_task_for_each(at: Path) -> None:
    frame = intents(800, 4)
    frame.assign(domain=np.where(np.arange(800) % 8 < 4, "one", "two")).to_parquet("domains.parquet")
    assert init("domains.parquet").exit_code == 0
    config = load_config(RunConfig, at / "domains.yaml")
    sequence = build_sequence(config.tasks, config.assets_path, config.seed)
    assert [task.name for task in sequence.tasks] == ["one", "two"]


def test_a_person_is_asked_for_what_is_not_given(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    intents(400).assign(topic=["a", "b"] * 200).to_csv("asked.csv", index=False)
    questions: list[tuple[str, str]] = []

    def ask(question: str, guess: str) -> str:
        questions.append((question, guess))
        return guess

    from jobs.commands.setup.init import initialise

    result = initialise(at / "asked.csv", None, {"label": "topic"}, ask)
    assert questions == [("Column with the text", "utterance"), ("Column with the large model's answers", "none")]
    assert result["columns"]["label"] == "topic"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rows.csv", "--label", "intnt"], "no column 'intnt' (--label)"),
        (["nowhere.csv"], "no such file"),
        (["numbers.csv"], "no column looks like labels"),
        (["rows.csv", "--output", "taken.yaml"], "the file is there already"),
    ],
)
def test_what_cannot_be_done_is_said(at: Path, words: list[str], message: str) -> None:
    intents(100, 2).to_csv("rows.csv", index=False)
    pd.DataFrame({"a": range(100)}).to_csv("numbers.csv", index=False)
    (at / "taken.yaml").touch()
    shown: Any = init(*words)
    assert shown.exit_code == 2
    assert message in shown.stderr
