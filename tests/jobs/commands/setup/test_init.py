"""`kcm init` writes a configuration that the first stage accepts, from tables that nobody tuned on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from jobs.cli import app
from kcm.config import load_config
from kcm.inputs.content import Content
from kcm.large.adapters.classifier import ClassifierConfig
from kcm.large.base import Item
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
    shown = init("tiny.csv")
    assert "everything would be escalated. Use about" in shown.stderr
    assert "too few: no epsilon up to 0.1 can be certified" in shown.stderr.splitlines()[-1]


def test_answers_in_the_table_become_a_recorded_large_model(at: Path) -> None:
    frame = intents(400)
    frame.assign(gpt=np.roll(frame["intent"], 1)).to_csv("answered.csv", index=False)
    assert init("answered.csv").exit_code == 0
    config = load_config(RunConfig, at / "answered.yaml")
    assert config.large.adapter == "recorded"
    assert config.large.build([f"intent_{kind}" for kind in range(10)], at).answer([]) == []
    written = (at / "answered.yaml").read_text()
    assert "cannot answer inputs that are not there" in written
    assert "#   kcm run answered.yaml\n" in written
    assert "#   kcm serve" not in written
    assert init("answered.csv", "--large", "none", "--output", "other.yaml").exit_code == 0
    assert load_config(RunConfig, at / "other.yaml").large.adapter == "classifier"
    assert "#   kcm serve other.yaml\n" in (at / "other.yaml").read_text()


def test_what_the_answers_in_the_table_cost_is_counted(at: Path) -> None:
    frame = intents(400).assign(gpt=lambda rows: np.roll(rows["intent"], 1), gpt_cost=0.25)
    frame.to_csv("paid.csv", index=False)
    assert init("paid.csv").exit_code == 0
    config = load_config(RunConfig, at / "paid.yaml")
    model = config.large.build([f"intent_{kind}" for kind in range(10)], at)
    [answer] = model.answer([Item("row-0", Content())])
    assert answer.cost.currency == 0.25


@pytest.mark.parametrize("as_bytes", [True, False])
def test_pictures_without_texts_are_read_by_two_sizes_of_a_network(at: Path, as_bytes: bool) -> None:
    (at / "pictures").mkdir()
    for number in range(300):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(at / "pictures" / f"{number}.png")
    files = [at / "pictures" / f"{number}.png" for number in range(300)]
    cells = [file.read_bytes() if as_bytes else str(file.relative_to(at)) for file in files]
    pd.DataFrame({"picture": cells, "kind": ["cat", "dog", "cow"] * 100}).to_parquet("pets.parquet")
    shown = init("pets.parquet")
    assert (shown.exit_code, shown.stdout) == (0, "pets.yaml\n"), shown.stderr
    assert "300 rows, 3 labels" in shown.stderr
    assert "#   kcm assets efficientnet-lite2\n" in (at / "pets.yaml").read_text()
    config = load_config(RunConfig, at / "pets.yaml")
    assert config.encoder.reads == config.large.reads == {"image"}
    assert isinstance(config.large, ClassifierConfig)
    assert config.large.encoder.side > config.encoder.side


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
