"""`kcm label --guarantee`: promises about single labels, alone or beside the target, in the certificate file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """1,500 texts with recorded answers."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    kind = np.random.default_rng(3).random(1500) < 0.3
    texts = [f"{'win a prize' if k else 'see the agenda'} {n}" for n, k in enumerate(kind)]
    frame = pd.DataFrame({"text": texts, "llm": np.where(kind, "spam", "ham")})
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def labelled(table: Path, *words: str) -> Result:
    fixed = ["--answers", "llm", "--text", "text", "--encoder", "words", "--json", str(table.parent / "out.json")]
    return CliRunner().invoke(app, ["label", str(table), *fixed, *words])


def test_guarantees_alone_are_all_that_is_promised(table: Path) -> None:
    shown = labelled(table, "--guarantee", "precision:spam=.95", "--guarantee", "recall:spam=.9")
    assert shown.exit_code == 0, shown.stderr
    assert "precision of 'spam': 95% proved" in shown.stdout
    assert "recall of 'spam': 90% proved" in shown.stdout
    certificate = json.loads((table.parent / "table.labelled.certificate.json").read_text())
    assert certificate["target"] is None
    assert certificate["certified"]
    assert [(each["kind"], each["asked"], each["holds"]) for each in certificate["guarantees"]] == [
        ("precision", 0.95, True),
        ("recall", 0.9, True),
    ]
    assert certificate["bought"] < 750


def test_an_explicit_target_is_promised_as_well(table: Path) -> None:
    shown = labelled(table, "--guarantee", "precision:spam=.9", "--target", ".9")
    assert shown.exit_code == 0, shown.stderr
    result = json.loads((table.parent / "out.json").read_text())
    assert result["target"] == 0.9
    assert result["promised"] >= 0.9
    assert [each["holds"] for each in result["guarantees"]] == [True]


def test_a_rare_label_is_named_in_the_plan(table: Path) -> None:
    shown = labelled(table, "--labels", "spam,ham,eggs", "--guarantee", "recall:eggs=.9", "--pilot-only")
    assert shown.exit_code == 0, shown.stderr
    assert "recall of 'eggs' cannot be promised: none of 100 answers is this label" in shown.stderr


def test_a_guarantee_of_no_label_costs_nothing(table: Path) -> None:
    shown = labelled(table, "--guarantee", "recall:eggs=.9")
    assert shown.exit_code == 2
    assert "'eggs'" in shown.stderr
    assert not (table.parent / "user").exists()
