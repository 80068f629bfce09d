"""The benchmark on several hosts ends with its line of JSON, whatever fails before it."""

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import cluster as module
from benchmarks.cluster import main

FIGURES = {"first": 0.9, "answered": 1.0, "wrong": 0, "lost": 0, "requests": 400}
SHARES = {"database": 1.0, "link": 1.0, "worker": 1.0, "head": 1.0}
RUNS = {"train": {"equal": True, "twice": 0}}


def fails(*_: Any) -> Any:
    raise AssertionError("w2 is away")


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces phases by name; before that each of them succeeds at once."""

    def cluster_on_hosts(number: int) -> AbstractContextManager[Any]:
        return nullcontext(SimpleNamespace(storage="s3://kcm/storage"))

    phases = {
        "prepare": None,
        "paid": [],
        "start": None,
        "submit": None,
        "wait": None,
        "result": {"policy": 1},
        "disturbed": ({"policy": 1}, 0),
        "deploy": None,
        "answered": FIGURES,
    }
    for name, result in phases.items():
        monkeypatch.setattr(module, name, lambda *_, result=result: result)
    monkeypatch.setattr(module, "cluster_on_hosts", cluster_on_hosts)
    monkeypatch.setattr(module, "why_no_cluster", lambda: None)
    monkeypatch.setattr(sys, "argv", ["cluster", "--quick"])

    def put(name: str, phase: Callable[..., Any]) -> None:
        monkeypatch.setattr(module, name, phase)

    return put


@pytest.fixture
def printed(
    replace: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> Callable[[], tuple[int, dict[str, Any], str]]:
    """Runs the benchmark: its exit code, its last line, and what stands on stderr."""

    def run() -> tuple[int, dict[str, Any], str]:
        before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGTERM)}
        try:
            code = main()
        finally:
            signal.alarm(0)
            for number, handler in before.items():
                signal.signal(number, handler)
        shown = capsys.readouterr()
        return code, json.loads(shown.out.splitlines()[-1]), shown.err

    return run


def test_a_line_for_each_phase_and_one_of_json(printed: Callable[..., Any]) -> None:
    code, line, err = printed()
    assert (code, line) == (0, {"equal": True, "runs": RUNS, "answered": SHARES, "wrong": 0, "lost": 0})
    lines = [words for words in err.splitlines() if " in " in words]
    phases = ["cluster", "run", "reference", *RUNS, "deploy", *SHARES]
    assert [words.split()[0] for words in lines] == phases


def test_another_result_than_on_one_machine_is_not_equal(printed: Callable[..., Any], replace: Any) -> None:
    replace("result", lambda cluster, storage: {"policy": storage})
    assert printed()[1]["equal"] is False


def test_phases_are_played_by_name(printed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["cluster", "--only", "train"])
    code, line, err = printed()
    assert (code, line["runs"], line["answered"]) == (0, RUNS, {})
    assert "deploy" not in err


def test_a_change_of_image_comes_last_since_the_cluster_is_another_one_then() -> None:
    assert list(module.SERVING)[-1] == "image"


def test_a_name_that_nothing_has_is_refused(
    replace: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cluster", "--only", "earthquake"])
    with pytest.raises(SystemExit):
        main()
    assert "nothing is called earthquake" in capsys.readouterr().err


def test_a_fault_that_cannot_be_measured_leaves_the_others(printed: Callable[..., Any], replace: Any) -> None:
    def answered(cluster: Any, fault: Any) -> Any:
        return fails() if fault == "link" else FIGURES

    replace("answered", answered)
    code, line, err = printed()
    others = {name: share for name, share in SHARES.items() if name != "link"}
    assert (code, line["answered"], line["failed"]) == (1, others, {"link": "AssertionError: w2 is away"})
    assert "link       failed in" in err


@pytest.mark.parametrize(
    ("name", "phase", "equal"),
    [
        ("cluster_on_hosts", "cluster", None),
        ("wait", "run", None),
        ("deploy", "deploy", True),
    ],
)
def test_what_was_measured_before_a_phase_failed_is_printed(
    name: str, phase: str, equal: bool | None, printed: Callable[..., Any], replace: Any
) -> None:
    replace(name, fails)
    code, line, _ = printed()
    failed = {phase: "AssertionError: w2 is away"}
    assert (code, line["failed"]) == (1, failed)
    assert (line["equal"], line["answered"], line["wrong"], line["lost"]) == (equal, {}, None, None)


def test_the_line_is_printed_when_time_is_up(printed: Callable[..., Any], replace: Any) -> None:
    def deploy(cluster: Any) -> None:
        os.kill(os.getpid(), signal.SIGALRM)

    replace("deploy", deploy)
    code, line, err = printed()
    assert (code, line["equal"], list(line["failed"])) == (1, True, ["time"])
    assert "deploy     stopped in" in err
