import xml.etree.ElementTree as ElementTree

import pytest

from kcm.report import tables


def rows(markup: str, part: str = "tbody") -> list[list[str]]:
    """Texts of the cells, row by row."""
    tree = ElementTree.fromstring(markup)
    return [["".join(cell.itertext()) for cell in row] for body in tree.iter(part) for row in body.iter("tr")]


def notes(markup: str) -> list[str]:
    return ["".join(item.itertext()) for item in ElementTree.fromstring(markup).iter("li")]


def test_outcomes_stand_under_their_heads(result) -> None:
    markup = tables.outcome_table(result)
    (head,) = rows(markup, "thead")
    first, second, *_ = rows(markup)
    shown = dict(zip(head, first, strict=True))
    assert shown["Task"] == "All tasks3,000 rows"
    assert shown["Large alone"] == "92.0%90.5–93.5"
    assert shown["Collaborator"] == "KCM"
    assert shown["Difference, points"] == "−0.3−0.9 to +0.2"
    assert shown["Calls saved"] == "71.0%"
    assert second == ["MCM", "80.0%78.0–82.0", "91.3%90.3–92.3", "−0.7−1.3 to −0.2", "36.0%", "64.0%", "57.6%"]


def test_every_row_of_the_outcomes_is_as_wide_as_the_head(result) -> None:
    del result["mcm"]["tasks"]["movies"]
    tree = ElementTree.fromstring(tables.outcome_table(result))
    for body in tree.iter("tbody"):
        lines = list(body.iter("tr"))
        spanned = [cell for cell in lines[0] if cell.get("rowspan")]
        assert {int(cell.attrib["rowspan"]) for cell in spanned} == {len(lines)}
        assert [len(line) for line in lines] == [9, *[7] * (len(lines) - 1)]


def test_a_missing_outcome_is_a_dash_with_a_reason(result) -> None:
    result["kcm"]["tasks"]["movies"]["cost_saved"] = None
    markup = tables.outcome_table(result)
    assert [row[-1] for row in rows(markup) if row[0].startswith("movies")] == ["–"]
    assert notes(markup) == ["Cost saved: not measured in this run."]


def test_missing_metrics_are_grouped_by_reason() -> None:
    values = {"kcm": {"pgr": None, "apgr": None, "auroc": 0.8123}, "mcm": {"pgr": 0.5, "apgr": 0.4, "auroc": 0.8}}
    markup = tables.metric_table("Routing", values)
    assert rows(markup)[0] == ["Performance gap recovered (PGR)", "–", "0.5"]
    assert rows(markup)[2] == ["AUROC of the gate score", "0.8123", "0.8"]
    assert notes(markup) == [
        "Performance gap recovered (PGR), Average PGR over call rates:"
        " undefined where the large model is no better than the small one."
    ]


def test_a_metric_outside_the_glossary_goes_by_its_own_name() -> None:
    markup = tables.metric_table("Other", {"kcm": {"new_metric": 0.25, "newer_metric": None}})
    assert rows(markup) == [["new metric", "0.25"], ["newer metric", "–"]]
    assert notes(markup) == ["newer metric: not measured in this run."]


def test_settings_are_flattened_and_laid_side_by_side(result) -> None:
    policies = {who: result[who]["policy"] for who in ("kcm", "mcm")}
    policies["mcm"] = {"gate": "margin", "decision": {"decision": "keep_all", "threshold": None}}
    assert rows(tables.setting_table("Policy", policies)) == [
        ["gate", "confidence", "margin"],
        ["decision", "keep above 2", "keep all"],
        ["prompt", "none", "–"],
    ]


def test_a_task_keeps_its_name_among_the_settings() -> None:
    policy = {
        "on_large_failure": "error",
        "task_decisions": {"my_task": {"decision": "escalate_all", "threshold": None}},
    }
    assert rows(tables.setting_table("Policy", {"kcm": policy})) == [
        ["on large failure", "error"],
        ["task decisions.my_task", "escalate all"],
    ]


def test_nested_metrics_have_names_of_their_own() -> None:
    saved = {"calls_saved_at_half_a_point": {"calls_saved": 0.476, "loss": -0.0032}}
    assert rows(tables.metric_table("Routing", {"kcm": saved})) == [
        ["Calls saved at ½ point lost on validate", "47.6%"],
        ["and what that loses on test, points", "−0.3"],
    ]


def test_every_decision_has_its_certificate(result) -> None:
    common = result["certificate"]
    assert rows(tables.certificate_table(common)) == [
        ["All inputs", "keep above 2", "1.8", "1,400", "0.1", "regret", "yes", "–"]
    ]
    own = common | {"decision": "escalate_all", "threshold": None, "bound": 0.0, "num_rows": 62, "reason": "too few"}
    both = rows(tables.certificate_table(common | {"tasks": {"movies": own}}))
    assert both[0][:2] == ["All other inputs", "keep above 2"]
    assert both[1] == ["movies", "escalate all", "0.0", "62", "0.1", "regret", "yes", "too few"]


def test_shades_of_the_matrix_run_from_the_lowest_to_the_highest() -> None:
    markup = tables.accuracy_matrix("kcm", [[0.9, None], [0.5, 0.7]], ["a", "b"], 0.5, 0.9)
    cells = list(ElementTree.fromstring(markup).iter("td"))
    assert [cell.text for cell in cells] == ["90.0", "–", "50.0", "70.0"]
    assert [cell.get("class") for cell in cells] == ["now heat-10", "ahead", "heat-0", "now heat-5"]


def test_a_matrix_of_one_value_has_a_shade() -> None:
    assert "heat-5" in tables.accuracy_matrix("kcm", [[0.9]], ["a"], 0.9, 0.9)


def test_the_pareto_front_starts_with_the_most_calls_saved() -> None:
    trial = {"number": 3, "collaborator": "kcm", "params": {"gate": "margin", "a_l": 0.5}, "area": 0.9}
    front = [trial | {"calls_saved": 0.4}, trial | {"number": 7, "calls_saved": 0.6}]
    assert rows(tables.pareto_table(front)) == [
        ["7", "KCM", "60.0%", "0.9", "gate margina_l 0.5"],
        ["3", "KCM", "40.0%", "0.9", "gate margina_l 0.5"],
    ]


def test_stages_say_what_came_from_the_cache() -> None:
    markup = tables.stage_table(
        {"train": 90.0, "tune": 45.0}, {"train": True, "tune": False}, {"train": "f1", "data": "f0"}
    )
    assert rows(markup) == [
        ["train", "1 min 30 s", "from the cache", "f1"],
        ["tune", "45 s", "computed", "–"],
        ["data", "–", "–", "f0"],
    ]
    assert "2 min 15 s in all" in markup
    bars = [span.get("style") for span in ElementTree.fromstring(markup).iter("span") if span.get("class") == "bar"]
    assert bars == ["--width: 100.0%", "--width: 50.0%", "--width: 0.0%"]


@pytest.mark.parametrize(
    ("value", "shown"), [(True, "yes"), (False, "no"), (None, "–"), ("", "–"), (3, "3"), ("<b>", "<b>")]
)
def test_facts_are_words(value, shown: str) -> None:
    (fact,) = ElementTree.fromstring(tables.facts({"fact": value})).iter("dd")
    assert "".join(fact.itertext()) == shown


def test_a_table_scrolls_by_keyboard_and_has_a_name(result) -> None:
    frame = next(ElementTree.fromstring(tables.outcome_table(result)).iter("div"))
    assert (frame.get("role"), frame.get("tabindex"), frame.get("aria-label")) == ("region", "0", "Outcomes by task")
