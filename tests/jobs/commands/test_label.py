"""`kcm label`: promises about single labels, accuracies by people's labels, and places that cannot be used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app
from tests.fake_upstream import FakeUpstream, label


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """1,500 texts with recorded answers, and 150 labels by people in their own spelling."""
    kind = np.random.default_rng(3).random(1500) < 0.3
    texts = [f"{'win a prize' if k else 'see the agenda'} {n}" for n, k in enumerate(kind)]
    people = np.where(np.arange(1500) % 10 == 0, np.where(kind, " SPAM", "Ham"), "")
    frame = pd.DataFrame({"text": texts, "llm": np.where(kind, "spam", "ham"), "people": people})
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def labelled(table: Path, *words: str) -> Result:
    fixed = ["--answers", "llm", "--text", "text", "--encoder", "words", "--json", str(table.parent / "out.json")]
    return CliRunner().invoke(app, ["label", str(table), *fixed, *words])


def result_of(table: Path, *words: str) -> dict[str, Any]:
    shown = labelled(table, *words)
    assert shown.exit_code == 0, shown.stderr
    return json.loads((table.parent / "out.json").read_text())


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


def test_truth_prints_two_accuracies(table: Path) -> None:
    shown = labelled(table, "--truth", "people")
    assert shown.exit_code == 0, shown.stderr
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("By people's labels on 150 rows")]
    assert "if they are a random sample" in line
    assert line.count("95% interval") == 2
    result = json.loads((table.parent / "out.json").read_text())["accuracies"]
    assert result["rows"] == 150
    assert result["llm"]["estimate"] == 1 > result["llm"]["low"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table.csv", "-o", "s3://bucket/out.csv"], "the output is a file of this machine (s3://bucket/out.csv)"),
        (["table.csv", "-o", "./table.csv"], "the output would replace the table (table.csv)"),
        (["table.csv", "-o", "out.xlsx"], "cannot write .xlsx (out.xlsx)"),
        (["gone.csv"], "no such file (gone.csv)"),
        (["folder.csv"], "a folder, not a file (folder.csv)"),
        (["table.csv", "--guarantee", "recall:eggs=.9"], "'eggs'"),
    ],
)
def test_what_cannot_work_is_one_line_and_costs_nothing(
    words: list[str], said: str, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    Path("folder.csv").mkdir()
    done = CliRunner().invoke(app, ["label", *words, "--answers", "llm", "--encoder", "words"])
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (table.parent / "user").exists()


PRICES = ("--input-price", "10", "--output-price", "10")


@pytest.fixture
def priced(table: Path, upstream: FakeUpstream) -> Callable[..., Result]:
    """Label the table by a server that reads the label off the text, at a price."""
    kinds = {"win": "spam", "see": "ham"}
    upstream.otherwise = lambda body: label(kinds[body["messages"][1]["content"].split()[1]])
    fixed = ["--llm", "some-model", "--base-url", upstream.base_url, "--labels", "spam,ham", "--text", "text"]
    fixed += ["--encoder", "words", *PRICES, "--json", str(table.parent / "out.json")]
    return lambda *words: CliRunner().invoke(app, ["label", str(table), *fixed, *words])


@pytest.mark.parametrize(("words", "code"), [(["--dry-run"], 0), (["--max-cost", "0.000001"], 4)])
def test_neither_a_dry_run_nor_a_tiny_cap_asks(
    priced: Callable[..., Result], upstream: FakeUpstream, words: list[str], code: int
) -> None:
    """Promise: a dry run names the price; a cap below one call ends with a code of its own."""
    done = priced(*words)
    assert done.exit_code == code, done.stderr
    assert code or "1,500 calls, about $" in done.stderr
    assert upstream.requests == []


def test_capped_job_delivers_what_it_paid_for(
    priced: Callable[..., Result], upstream: FakeUpstream, table: Path
) -> None:
    """Promise: exit code 3 and labels for all rows; --pilot-only leaves unbought what such a job has begun to draw."""
    done = priced("--max-cost", "0.15")
    assert done.exit_code == 3, done.stderr
    result = json.loads((table.parent / "out.json").read_text())
    assert 0 < result["cost"] <= 0.15
    assert not result["certified"]
    assert pd.read_csv(table.parent / "table.labelled.csv")["label"].notna().all()
    num_asked = len(upstream.requests)
    pilot = priced("--pilot-only")
    assert pilot.exit_code == 0, pilot.stderr
    assert "the draw has begun" in pilot.stderr
    assert len(upstream.requests) == num_asked


def test_dry_run_needs_no_key(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The price is known before there is an account; the job itself ends with 4 without a key."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    words = ["label", str(table), "--llm", "gpt-4.1-mini", "--labels", "spam,ham", "--text", "text"]
    shown = CliRunner().invoke(app, [*words, "--dry-run"])
    assert shown.exit_code == 0, shown.stderr
    assert "1,500 calls, about $" in shown.stderr
    assert CliRunner().invoke(app, words).exit_code == 4
    words[3] = "a-model-of-our-own"
    unknown = CliRunner().invoke(app, [*words, "--dry-run"])
    assert "1,500 calls. Their price is unknown: name it by\n--input-price" in unknown.stderr
