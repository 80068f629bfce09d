"""`kcm route` on tables that nobody tuned on: every command ends as its help promises."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app

LABELS = np.array(["cat", "dog", "bird, or none"])
ANSWERS = ("--small-prediction", "small", "--large-prediction", "large", "--label", "label")
CORRECT = ("--small-correct", "s", "--large-correct", "l")


def route(*words: object) -> Result:
    return CliRunner().invoke(app, ["route", *map(str, words)])


def succeeded(tmp_path: Path, *words: object) -> dict[str, Any]:
    shown = route(*words, "--json", tmp_path / "out.json")
    assert shown.exit_code == 0, shown.stderr
    return json.loads((tmp_path / "out.json").read_text(), parse_constant=pytest.fail)


def answers(num_rows: int, *, large: float = 0.9, useful: float = 1.0) -> pd.DataFrame:
    """The small model is right as often as its confidence says, the more so the more `useful` that is."""
    rng = np.random.default_rng(0)
    confidence, label = rng.beta(3, 1, num_rows), rng.integers(0, 3, num_rows)
    small = np.where(rng.random(num_rows) < useful * confidence + (1 - useful) * 0.75, label, (label + 1) % 3)
    large_answer = np.where(rng.random(num_rows) < large, label, (label + 2) % 3)
    return pd.DataFrame(
        {
            "confidence": confidence,
            "small": LABELS[small],
            "large": LABELS[large_answer],
            "label": LABELS[label],
            "prompt": [
                f"Question {n},\nabout {'a hard' if c < 0.6 else 'an easy'} thing 質問"
                for n, c in enumerate(confidence)
            ],
        }
    )


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    path = tmp_path / "logged.csv"
    answers(800).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("table", "decision"),
    [
        (answers(800, useful=0.08), {"threshold", "escalate_all"}),
        (answers(800, large=0.4), {"keep_all"}),
        (answers(800).assign(small=LABELS[0], large=LABELS[0], label=LABELS[0]), {"keep_all"}),
        (answers(800).assign(small=LABELS[1], large=LABELS[1], label=LABELS[0]), {"keep_all"}),
        (answers(800).assign(small=LABELS[1], large=LABELS[0], label=LABELS[0]), {"threshold", "escalate_all"}),
        (answers(20), {"escalate_all"}),
        (answers(1), {"escalate_all"}),
        (answers(800).assign(confidence=0.5), {"escalate_all"}),
    ],
    ids=["useless", "small better", "all right", "all wrong", "small wrong", "few rows", "one row", "one confidence"],
)
def test_certify_works_on_any_table(table: pd.DataFrame, decision: set[str], tmp_path: Path) -> None:
    table.to_parquet(tmp_path / "t.parquet")
    words = ("--confidence", "confidence", *ANSWERS, "--epsilon", 0.05)
    result = succeeded(tmp_path, "certify", tmp_path / "t.parquet", *words)
    assert result["decision"] in decision
    assert result["valid"] is True
    assert (result["threshold"] is None) == (result["decision"] != "threshold")
    assert result["reason"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["certify", "absent.csv", *CORRECT], "absent.csv)"),
        (["certify", "t.csv"], "no columns say which model was right"),
        (["certify", "t.csv", *CORRECT, "--confidence", "c"], "must lie in [0, 1]: row 2: '1.5'"),
        (["certify", "t.csv", *CORRECT, "--score", "c", "--split", "p"], "hold the same item"),
        (["certify", "t.csv", *CORRECT, "--score", "c", "--router", "absent"], "no router here (absent)"),
        (["fit", "t.csv", *CORRECT, "--text", "q", "--output", "router"], "no column 'q' (text)"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("s,l,c,p\n1,1,0.5,validate\n0,1,1.5,test\n1,1,0.5,certify\n")
    shown = route(*words, "--json", "out.json")
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr.startswith("error: ")
    assert shown.stderr.count("\n") == 1
    assert expected in shown.stderr
    assert json.loads((tmp_path / "out.json").read_text()) == {"error": shown.stderr.strip().removeprefix("error: ")}


def test_a_ledger_charges_another_epsilon_score_and_file(logged: Path, tmp_path: Path) -> None:
    """All looks at one table are one question, whichever columns are named; a line says before a look what it costs."""
    words = ("certify", logged, "--confidence", "confidence", *ANSWERS, "--ledger", tmp_path / "ledger")
    assert "First look at these rows: uses 80% of delta 0.1" in route(*words, "--epsilon", "0.1").stderr
    looks = [succeeded(tmp_path, *words, "--text", "prompt", "--epsilon", epsilon)["look"] for epsilon in (0.1, 0.2)]
    table = pd.read_csv(logged)
    table["confidence"] **= 2
    table.to_csv(tmp_path / "renamed.csv", index=False)
    again = ("certify", tmp_path / "renamed.csv", *words[2:], "--text", "prompt")
    assert [*looks, succeeded(tmp_path, *again)["look"]] == [2, 3, 4]


def test_fitted_router_certifies(logged: Path, tmp_path: Path) -> None:
    router = tmp_path / "router"
    words = ("--text", "prompt", "--confidence", "confidence", *ANSWERS)
    fitted = succeeded(tmp_path, "fit", logged, *words, "--output", router, "--encoder", "none")
    assert fitted["split"] == "validate"
    certificate = succeeded(tmp_path, "certify", logged, "--router", router, "--epsilon", 0.1)
    assert certificate["searched"]["decision"] == "keep_all"
