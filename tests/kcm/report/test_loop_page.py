"""The page of a loop: every turn with its figures, and nothing of the data becomes markup."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kcm.report.page import render_loop

HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture
def state() -> dict[str, Any]:
    """Two turns: of the first a challenger became the champion, of the second nothing was trained."""
    gates = {"rows": {"verdict": "pass", "reason": "enough"}, "call_rate": {"verdict": "pass", "reason": HOSTILE}}
    certificate = {"valid": True, "bound": 0.0123, "statement": "of this window", "window": [0, 500]}
    first = {"version": "reviews/2", "digest": "d2", "promoted": True, "awaits_approval": False, "verdict": "pass"}
    first |= {"after": 0, "upto": 1500, "gates": gates, "reason": "all passed", "labels": 41, "seconds": 12.5}
    first |= {"calls_saved_before": 0.25, "calls_saved_after": 0.5, "certificate": certificate}
    second = {"version": None, "digest": None, "promoted": False, "awaits_approval": False, "verdict": "fail"}
    second |= {"after": 1500, "upto": 1600, "gates": {"rows": {"verdict": "fail", "reason": "too few"}}, "labels": 3}
    second |= {"reason": "too few", "seconds": 0.5}
    champion = {"version": "reviews/2", "digest": "d2", "promoted_at": "2026-03-04T05:06:07+00:00"}
    return {"name": HOSTILE, "champion": champion, "turns": [first, second], "rolled_back": None}


def rows_of(page: str) -> list[str]:
    rows = re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in rows]


def test_every_turn_has_its_figures_the_newest_first(state: dict[str, Any]) -> None:
    rows = rows_of(render_loop(state))
    assert rows[1] == "none no 1,501 to 1,600 – – – 3 0.5 s too few"
    assert rows[2] == "reviews/2 yes 1 to 1,500 25.0% 50.0% 1.23 points 41 12 s all passed"
    assert rows[4] == "rows fail too few"


def test_the_statement_of_a_certificate_stands_above_the_gates_of_its_version(state: dict[str, Any]) -> None:
    details = re.findall(r"<details.*?</details>", render_loop(state), re.DOTALL)
    assert ["of this window" in each for each in details] == [False, True]


def test_a_bound_is_shown_only_where_the_certificate_holds(state: dict[str, Any]) -> None:
    state["turns"][0]["certificate"]["valid"] = False
    assert "50.0% – 41" in rows_of(render_loop(state))[2]


def test_what_was_stopped_is_said_first_and_text_stays_text(state: dict[str, Any]) -> None:
    state["rolled_back"] = {"version": "reviews/3", "at": "2026-03-05T00:00:00+00:00", "reason": f"refuted {HOSTILE}"}
    page = render_loop(state)
    assert re.search(r"reviews/3</bdi> was stopped on 2026-03-05: refuted &lt;img", page)
    assert "<img" not in page
    assert "<script" not in page


def test_a_loop_without_turns_says_so() -> None:
    page = render_loop({"name": "reviews", "champion": None, "turns": [], "rolled_back": None})
    assert "There is no champion" in page
    assert "No turn has been taken yet" in page
