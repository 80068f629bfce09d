"""The benchmark on several hosts ends with its line of JSON, whatever fails before it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from benchmarks import cluster as module
from benchmarks.cluster import main

FIGURES = {"first": 0.9, "answered": 1.0, "wrong": 0, "requests": 400}


def fails(*_: Any) -> Any:
    raise AssertionError("w2 is away")


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces phases by name; before that each of them succeeds at once."""

    def cluster_on_hosts(number: int) -> AbstractContextManager[None]:
        return nullcontext()

    phases = {
        "prepare": None,
        "start_on_one_machine": None,
        "submit": {"policy": 1},
        "on_one_machine": {"policy": 1},
        "deploy": [],
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
    shares = {"database": 1.0, "link": 1.0, "worker": 1.0}
    assert (code, line) == (0, {"equal": True, "answered": shares, "wrong": 0})
    lines = [words for words in err.splitlines() if " in " in words]
    assert [words.split()[0] for words in lines] == ["cluster", "run", "reference", "deploy", *shares]


def test_another_result_than_on_one_machine_is_not_equal(printed: Callable[..., Any], replace: Any) -> None:
    replace("on_one_machine", lambda cluster, started: {"policy": 2})
    assert printed()[1]["equal"] is False


def test_a_fault_that_cannot_be_measured_leaves_the_others(printed: Callable[..., Any], replace: Any) -> None:
    def answered(cluster: Any, urls: Any, fault: Any) -> Any:
        return fails() if fault is module.a_link_is_cut else FIGURES

    replace("answered", answered)
    code, line, err = printed()
    assert (code, line["answered"], line["failed"]) == (
        1,
        {"database": 1.0, "worker": 1.0},
        {"link": "AssertionError: w2 is away"},
    )
    assert "link       failed in" in err


@pytest.mark.parametrize(
    ("name", "phase", "equal"),
    [
        ("cluster_on_hosts", "cluster", None),
        ("submit", "run", None),
        ("deploy", "deploy", True),
    ],
)
def test_what_was_measured_before_a_phase_failed_is_printed(
    name: str, phase: str, equal: bool | None, printed: Callable[..., Any], replace: Any
) -> None:
    replace(name, fails)
    code, line, _ = printed()
    failed = {phase: "AssertionError: w2 is away"}
    assert (code, line) == (1, {"equal": equal, "answered": {}, "wrong": None, "failed": failed})


def test_the_line_is_printed_when_time_is_up(printed: Callable[..., Any], replace: Any) -> None:
    def deploy(cluster: Any) -> None:
        os.kill(os.getpid(), signal.SIGALRM)

    replace("deploy", deploy)
    code, line, err = printed()
    assert (code, line["equal"], list(line["failed"])) == (1, True, ["time"])
    assert "deploy     stopped in" in err
