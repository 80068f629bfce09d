"""`kcm label --truth`: a second line with two accuracies, whose calls the plan counts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """1,200 texts with recorded answers, and 120 labels by people in their own spelling."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    rng = np.random.default_rng(3)
    kind = rng.integers(0, 2, 1200)
    frame = pd.DataFrame(
        {"text": [f"{'win a prize' if k else 'see the agenda'} {n}" for n, k in enumerate(kind)]},
    )
    frame["llm"] = np.where(kind, "spam", "ham")
    frame["people"] = np.where(np.arange(1200) % 10 == 0, np.where(kind, " SPAM", "Ham"), "")
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def labelled(table: Path, *words: str) -> Result:
    fixed = ["--answers", "llm", "--text", "text", "--encoder", "words", "--json", str(table.parent / "out.json")]
    return CliRunner().invoke(app, ["label", str(table), *fixed, *words])


def test_truth_prints_two_accuracies(table: Path) -> None:
    shown = labelled(table, "--truth", "people")
    assert shown.exit_code == 0, shown.stderr
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("By people's labels on 120 rows")]
    assert "if they are a random sample" in line
    assert line.count("95% interval") == 2
    result = json.loads((table.parent / "out.json").read_text())["accuracies"]
    assert result["rows"] == 120
    assert result["llm"]["estimate"] == 1 > result["llm"]["low"]


def test_the_plan_counts_the_calls_for_truth(table: Path) -> None:
    planned = []
    for words in ((), ("--truth", "people")):
        assert labelled(table, "--pilot-only", *words).exit_code == 0
        planned.append(json.loads((table.parent / "out.json").read_text())["planned_calls"])
    assert 0 < planned[1] - planned[0] <= 120


def test_unknown_truth_is_one_line(table: Path) -> None:
    frame = pd.read_csv(table)
    frame.loc[0, "people"] = "junk"
    frame.to_csv(table, index=False)
    shown = labelled(table, "--truth", "people")
    assert shown.exit_code != 0
    assert "column 'people' has values that are not labels in 1 rows: 'junk'" in shown.stderr
