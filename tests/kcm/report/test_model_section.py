"""One model in words and figures: what a page that serves it says of it."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from kcm.cascade.policy import KEEP_ALL, Decision, Policy
from kcm.report.page import model_section

Lines = Callable[[str], str]
POLICY = Policy().model_dump(mode="json")
FRONTIER = {"call_rate": [1.0, 0.5, 0.0], "accuracy": [0.92, 0.93, 0.82], "threshold": [5.0, 2.0, -1.0]}
HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture
def metrics(result: dict[str, Any]) -> dict[str, Any]:
    return result["kcm"] | {"frontier": FRONTIER}


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{markup}</div>")


def test_shows_promise_frontier_deployed_point_and_matrix(
    metrics: Any, result: Any, lines: Lines, snapshot: SnapshotAssertion
) -> None:
    markup = model_section("kcm", metrics, result["certificate"], POLICY)
    section = parsed(markup)
    assert lines(markup) == snapshot
    tips = [mark.get("aria-label") for mark in section.iter()]
    assert "KCM (quadratic) at its threshold: 91.7% (90.7–92.7) at a call rate of 29.0%" in tips
    assert not any("style" in element.attrib for element in section.iter())  # pages may forbid inline styles


def test_control_has_its_own_name_and_a_matrix_alone(
    metrics: Any, result: Any, lines: Lines, snapshot: SnapshotAssertion
) -> None:
    del metrics["frontier"]
    markup = model_section("mcm", metrics, result["certificate"], POLICY)
    assert lines(markup) == snapshot
    assert "Accuracy matrix of MCM" in markup


@pytest.mark.parametrize("certified", [False, True])
def test_unevaluated_bundle_says_so_and_shows_its_promise(
    result: Any, certified: bool, lines: Lines, snapshot: SnapshotAssertion
) -> None:
    assert lines(model_section("kcm", {}, result["certificate"] if certified else {}, POLICY)) == snapshot


def test_names_are_never_markup(metrics: Any, result: Any) -> None:
    metrics["tasks"][HOSTILE] = metrics["tasks"].pop("reviews")
    result["certificate"]["reason"] = HOSTILE
    policy = POLICY | {"task_decisions": {HOSTILE: {"decision": "keep_all", "threshold": None}}}
    section = model_section("kcm", metrics, result["certificate"], policy)
    assert "<img" not in section
    assert HOSTILE in "".join(parsed(section).itertext())


def test_a_policy_is_described_in_sentences(lines: Lines, snapshot: SnapshotAssertion) -> None:
    policy = Policy(
        gate="signals",
        temperature=1.25,
        decision=Decision(decision="threshold", threshold=-0.5),
        task_decisions={"tweets": KEEP_ALL},
        on_large_failure="error",
    )
    assert lines(model_section("kcm", {}, {}, policy.model_dump(mode="json"))) == snapshot


def test_a_void_certificate_promises_nothing_and_says_why(result, metrics, lines: Lines) -> None:
    why = "the encoder was certified in <onnx> on cpu and runs in torch on cuda"
    section = model_section("kcm", metrics, result["certificate"], POLICY, void=why)
    assert "&lt;onnx&gt;" in section
    assert f"No guarantee here: {why}." in lines(section)
    assert "headline" not in section  # it tells what is lost at most
