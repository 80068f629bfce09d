"""`kcm label` as a process: real files, a real server, an interruption."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.fake_upstream import FakeUpstream, Turn, label

pytestmark = pytest.mark.integration
WORDS = {"good": "positive", "bad": "negative"}
# The signal reaches a command also in a session that a shell has started in the background, which ignores it.
HEEDING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from jobs.cli import main; main()"


@pytest.fixture
def server(upstream: FakeUpstream) -> FakeUpstream:
    upstream.otherwise = classify
    return upstream


def classify(body: dict[str, Any]) -> Turn:
    return label(WORDS[body["messages"][1]["content"].split()[1]])


def asked(server: FakeUpstream) -> Counter[str]:
    return Counter(body["messages"][1]["content"] for body in list(server.requests))


def write_table(path: Path) -> pd.DataFrame:
    words = np.random.default_rng(0).choice(list(WORDS), 500)
    frame = pd.DataFrame({"text": [f"{word} film {n}" for n, word in enumerate(words)]})
    frame.to_csv(path, index=False)
    return frame.assign(said=[WORDS[word] for word in words])


def command(table: Path, server: FakeUpstream, *more: str) -> list[str]:
    options = ["--llm", "some-model", "--base-url", server.base_url, "--labels", "positive,negative"]
    return [sys.executable, "-m", "jobs.cli", "label", str(table), *options, "--encoder", "words", *more]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, env=environment(folder), capture_output=True, text=True, timeout=300, check=False)


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {"XDG_DATA_HOME": str(folder / "home")}


def test_a_table_is_labelled_with_a_certificate(server: FakeUpstream, tmp_path: Path) -> None:
    """Table in, table and certificate out; a second start pays for nothing."""
    table = tmp_path / "films.csv"
    frame = write_table(table)
    for _ in range(2):
        done = run(tmp_path, *command(table, server, "--json", str(tmp_path / "result.json")))
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / "result.json").read_text())
        assert asked(server).total() == result["bought"] < 250
    labelled = pd.read_csv(tmp_path / "films.labelled.csv")
    assert labelled["label"].eq(frame["said"]).mean() >= 0.95
    certificate = json.loads((tmp_path / "films.labelled.certificate.json").read_text())
    assert certificate["certified"]
    assert "With 9" in done.stdout


def test_dry_run_and_pilot_stop_where_they_say(server: FakeUpstream, tmp_path: Path) -> None:
    table = tmp_path / "films.csv"
    write_table(table)
    dry = run(tmp_path, *command(table, server, "--dry-run", "--input-price", "1", "--output-price", "2"))
    assert dry.returncode == 0, dry.stderr
    assert "500 calls, about $" in dry.stderr
    assert server.requests == []
    pilot = run(tmp_path, *command(table, server, "--pilot-only", "--json", str(tmp_path / "plan.json")))
    assert pilot.returncode == 0, pilot.stderr
    assert asked(server).total() == 50
    assert json.loads((tmp_path / "plan.json").read_text())["planned_calls"] < 500


@pytest.mark.parametrize(("cost", "code"), [("0.000001", 4), ("0.15", 3)])
def test_a_cap_has_exit_codes_of_its_own(server: FakeUpstream, tmp_path: Path, cost: str, code: int) -> None:
    """Below one call nothing is spent; below the plan the best promise that was paid for is delivered."""
    table = tmp_path / "films.csv"
    write_table(table)
    prices = ["--input-price", "10", "--output-price", "10", "--max-cost", cost, "--json", str(tmp_path / "r.json")]
    done = run(tmp_path, *command(table, server, *prices))
    assert done.returncode == code, done.stderr
    if code == 4:
        assert server.requests == []
    else:
        result = json.loads((tmp_path / "r.json").read_text())
        assert 0 < result["cost"] <= float(cost)
        assert not result["certified"]
        assert pd.read_csv(tmp_path / "films.labelled.csv")["label"].notna().all()


def test_pilot_only_buys_nothing_once_the_draw_has_begun(server: FakeUpstream, tmp_path: Path) -> None:
    """A capped job leaves much to buy, and --pilot-only leaves it unbought."""
    table = tmp_path / "films.csv"
    write_table(table)
    prices = ["--input-price", "10", "--output-price", "10"]
    assert run(tmp_path, *command(table, server, *prices, "--max-cost", "0.15")).returncode == 3
    before = asked(server).total()
    pilot = run(tmp_path, *command(table, server, *prices, "--pilot-only"))
    assert pilot.returncode == 0, pilot.stderr
    assert "the draw has begun" in pilot.stderr
    assert asked(server).total() == before


def test_ctrl_c_ends_with_a_line_and_keeps_what_was_paid(server: FakeUpstream, tmp_path: Path) -> None:
    table = tmp_path / "films.csv"
    write_table(table)
    interrupted = threading.Event()

    def answer(body: dict[str, Any]) -> Turn:
        if asked(server).total() >= 20:
            interrupted.wait(100)
        return classify(body)

    server.otherwise = answer
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING, *command(table, server)[3:]],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while asked(server).total() < 20:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    interrupted.set()
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "start again" in errors
