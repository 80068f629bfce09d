"""The page of a run: whole, safe, readable without seeing it, and written so that no half of it is left."""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from kcm.errors import ArtefactError
from kcm.report.page import ReportInputs, render_loop, render_report, write_report

Lines = Callable[[str], str]
HOSTILE = [
    "<script>alert(1)</script>",
    '" onload="alert(1)',
    "'><img src=x onerror=alert(1)>",
    "</style><script>alert(2)</script>",
    "</title></code></pre><iframe src='javascript:alert(3)'>",
    "&lt;b&gt;",
]


def without_numbers(value: Any) -> Any:
    """The same structure with every number unknown."""
    if isinstance(value, dict):
        return {key: without_numbers(child) for key, child in value.items()}
    if isinstance(value, list):
        return [without_numbers(child) for child in value]
    return None if isinstance(value, int | float) and not isinstance(value, bool) else value


def test_the_page_tells_the_run_from_headline_to_config(inputs, lines: Lines, snapshot: SnapshotAssertion) -> None:
    assert lines(render_report(inputs)) == snapshot


def test_hostile_names_are_text(inputs, read_page, assert_safe) -> None:
    """Promise: whatever it names, the page asks nothing of the network and runs the one script of its policy."""
    result = inputs.result
    for who in ("kcm", "mcm"):
        task = result[who]["tasks"]["reviews"]
        result[who]["tasks"] = dict.fromkeys(HOSTILE[:3], task)
        result[who]["policy"] = {name: name for name in HOSTILE}
        result[who]["continual"][HOSTILE[0]] = 0.5
    result["name"] = HOSTILE[3]
    result["kept_wrong"]["rows"] = [dict.fromkeys(("id", "text", "label", "small", "large"), each) for each in HOSTILE]
    result["certificate"] |= {"method": HOSTILE[0], "reason": HOSTILE[1], "valid": False}
    result["mlflow"] = dict.fromkeys(result["mlflow"], HOSTILE[2])
    result["seconds"], result["cached"] = {HOSTILE[0]: 1.0}, {HOSTILE[0]: True}
    for trial in inputs.trials:
        trial["params"] = {HOSTILE[0]: HOSTILE[1]}
    hostile = replace(
        inputs, config_yaml=HOSTILE[4], machine=HOSTILE[2], lineage={HOSTILE[0]: HOSTILE[1], HOSTILE[3]: HOSTILE[5]}
    )

    page = render_report(hostile)
    assert_safe(page)
    text = read_page(page).text
    assert all(name in text for name in HOSTILE)


def test_links_lead_to_sections_and_ids_are_unique(inputs, read_page) -> None:
    tags = read_page(render_report(inputs)).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"][1:] for tag, attributes in tags if tag == "a"} <= set(ids)
    labelled = {attributes["aria-labelledby"] for tag, attributes in tags if tag == "section"}
    assert len(labelled) == 6
    assert labelled <= set(ids)


def test_the_page_can_be_read_without_seeing_it(inputs, read_page) -> None:
    tags = read_page(render_report(inputs)).tags
    names = [tag for tag, _ in tags]
    assert ("html", {"lang": "en"}) in tags
    assert names.count("h1") == names.count("main") == names.count("title") == 1
    assert names.count("table") == names.count("caption")
    plots = [attributes for tag, attributes in tags if attributes.get("class") == "plot"]
    assert len(plots) == names.count("svg") == names.count("figure") == 4
    assert all(plot["role"] == "group" and len(plot["aria-label"]) > 40 for plot in plots)
    levels = [int(name[1]) for name in names if re.fullmatch(r"h[1-6]", name)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_a_run_of_which_nothing_was_measured_still_has_a_page(
    inputs, lines: Lines, snapshot: SnapshotAssertion
) -> None:
    result = without_numbers(inputs.result)
    bare = replace(inputs, result=result, frontiers={}, trials=[], certificate_path={}, lineage={})
    text = lines(render_report(bare))
    assert text == snapshot
    assert not re.search(r"\bNone\b|\bnan\b", text)


def test_a_run_with_little_more_than_its_total_still_has_a_page(
    inputs, lines: Lines, snapshot: SnapshotAssertion
) -> None:
    total = {key: inputs.result["kcm"]["overall"][key] for key in ("cascade_accuracy", "call_rate")}
    bare = replace(inputs, result={"kcm": {"overall": total}}, frontiers={}, trials=[], certificate_path={})
    assert lines(render_report(bare)) == snapshot


def test_only_the_deployed_model_is_shown_before_the_controls(inputs, lines: Lines) -> None:
    """The controls stand in a folded section, at the end of the results."""
    own, folded = lines(render_report(inputs)).split("which are not deployed")
    assert "MCM" not in own
    assert "MCM (random ReLU) at its threshold" in folded
    del inputs.result["mcm"]
    assert "Controls" not in lines(render_report(inputs))


def test_how_the_model_came_about_is_named(inputs, lines: Lines) -> None:
    """Each fact is there if the run knows it, and none without."""
    before = lines(render_report(inputs)).splitlines()
    inputs.result["kcm"]["policy"]["goal"] = "accuracy"
    inputs.result["kcm"] |= {
        "forecast": {"keep_rate": 0.501, "low": 0.41, "high": 0.602},
        "answer_weight": 0.5,
        "num_networks": 1,
    }
    facts = set(lines(render_report(inputs)).splitlines()) - set(before)
    assert {"the highest accuracy", "50.1% (80% interval 41.0% to 60.2%)"} <= facts


def test_a_run_of_one_task_shows_it_once(inputs, lines: Lines) -> None:
    """Promise: panels without content are left out; no row is all dashes."""
    for who in ("kcm", "mcm"):
        found = inputs.result[who]
        found |= {"tasks": {"mail": dict(found["overall"])}, "accuracy_matrix": [[0.85]]}
        found["continual"] = {"average_accuracy": 0.85, "forgetting_first": None, "fwt": None, "bwt": None}
        found["overall"]["forgetting_first"] = None
    text = lines(render_report(replace(inputs, trials=[])))
    own, _, controls = text.partition("which are not deployed")
    assert [len(re.findall(r"^\| mail", part, re.M)) for part in (own, controls)] == [1, 1]
    assert not re.search(r"All tasks|Accuracy matrix|Continual learning", text)
    assert "Tuning did not run." in text
    assert not re.search(r"^\| [^|]+( \| –){2,}$", text, re.M)


def test_every_threshold_is_on_the_slider_and_in_the_table(inputs, read_page) -> None:
    inputs.result["costs"] = {"large": 0.002, "small": 0.0001, "currency": "USD"}
    page = read_page(render_report(inputs))
    (slider,) = [attributes for _, attributes in page.tags if attributes.get("class") == "slider"]
    points = json.loads(slider["data-points"])
    assert [point["threshold"] for point in points] == ["5", "3", "2", "1"]
    deployed = points[int(slider["data-start"])]
    assert deployed == {
        "threshold": "2",
        "call_rate": "30.0%",
        "accuracy": "91.7%",
        "saved": "$1.30",
        "bound": "1.8 lost",
    }
    assert "hidden" in slider  # until the script shows it; the table needs none
    assert all(value in page.text for point in points for value in point.values())


def test_a_large_run_makes_a_small_page(inputs) -> None:
    count = 50_000
    shares = [index / (count - 1) for index in range(count)]
    columns = {"call_rate": shares, "accuracy": shares, "threshold": shares}
    path = {
        "method": "regret",
        "threshold": shares,
        "p_value": shares,
        "loss": shares,
        "bound": shares,
        "call_rate": shares,
    }
    trial = inputs.trials[2]
    large = replace(
        inputs,
        frontiers={"kcm": columns, "mcm": columns},
        certificate_path=path,
        trials=[trial | {"number": index} for index in range(500)],
    )
    assert len(render_report(large)) < 500_000


def test_a_disk_that_fills_up_leaves_the_old_page(inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(self: Path, *args: Any, **kwargs: Any) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ArtefactError, match="No space left on device"):
        write_report(inputs, path)
    assert path.read_bytes() == b"old"


def test_challenger_report_starts_with_its_gates(inputs: ReportInputs, lines: Lines) -> None:
    gates = {"old_tasks": {"verdict": "fail", "reason": "<b>tweets</b> lose more than 1 points"}}
    page = render_report(replace(inputs, gates=gates))
    text = lines(page)
    assert text.index("Promotion gates") < text.index("Accuracy and cost")
    assert "<b>tweets</b> lose more than 1 points" in text
    assert "<b>tweets" not in page
    assert "Promotion gates" not in lines(render_report(inputs))


MARKUP = '<img src=x onerror="alert(1)">'


@pytest.fixture
def state() -> dict[str, Any]:
    """Two turns: of the first a challenger became the champion, of the second nothing was trained."""
    gates = {"rows": {"verdict": "pass", "reason": "enough"}, "call_rate": {"verdict": "pass", "reason": MARKUP}}
    certificate = {"valid": True, "bound": 0.0123, "statement": "of this window", "window": [0, 500]}
    first = {"version": "reviews/2", "digest": "d2", "promoted": True, "awaits_approval": False, "verdict": "pass"}
    first |= {"after": 0, "upto": 1500, "gates": gates, "reason": "all passed", "labels": 41, "seconds": 12.5}
    first |= {"calls_saved_before": 0.25, "calls_saved_after": 0.5, "certificate": certificate}
    second = {"version": None, "digest": None, "promoted": False, "awaits_approval": False, "verdict": "fail"}
    second |= {"after": 1500, "upto": 1600, "gates": {"rows": {"verdict": "fail", "reason": "too few"}}, "labels": 3}
    second |= {"reason": "too few", "seconds": 0.5}
    champion = {"version": "reviews/2", "digest": "d2", "promoted_at": "2026-03-04T05:06:07+00:00"}
    return {"name": MARKUP, "champion": champion, "turns": [first, second], "rolled_back": None}


def rows_of(page: str) -> list[str]:
    rows = re.findall(r"<tr.*?</tr>", page, re.DOTALL)
    return [" ".join(re.sub(r"<[^>]+>", " ", row).split()) for row in rows]


def test_every_turn_has_its_figures_the_newest_first(state: dict[str, Any]) -> None:
    rows = rows_of(render_loop(state))
    assert rows[1] == "none not promoted 1,501 to 1,600 – – – 3 0.5 s too few"
    assert rows[2] == "reviews/2 promoted 1 to 1,500 25.0% 50.0% 1.23 points 41 12 s all passed"
    assert rows[4] == "rows fail too few"


def test_certificate_statement_stands_above_the_gates(state: dict[str, Any]) -> None:
    details = re.findall(r"<details.*?</details>", render_loop(state), re.DOTALL)
    assert ["of this window" in each for each in details] == [False, True]


def test_what_was_stopped_is_said_first_and_text_stays_text(state: dict[str, Any], assert_safe) -> None:
    state["rolled_back"] = {"version": "reviews/3", "at": "2026-03-05T00:00:00+00:00", "reason": f"refuted {MARKUP}"}
    page = render_loop(state)
    assert re.search(r"reviews/3 was stopped on 2026-03-05: refuted &lt;img", page)
    assert_safe(page)
