import xml.etree.ElementTree as ElementTree

from kcm.report.header import header


def key_figures(markup: str) -> dict[str, str]:
    """Name and text of every key figure."""
    keys = [entry for entry in ElementTree.fromstring(markup).iter("div") if entry.find("dt") is not None]
    return {entry.findtext("dt") or "": "".join(entry[1].itertext()) for entry in keys}


def test_key_figures_of_an_ordinary_run(result) -> None:
    assert key_figures(header(result, "reviews")) == {
        "Calls saved": "71.0%call rate 29.0%",
        "Cascade accuracy": "91.7%large alone 92.0%, small alone 82.0%",
        "Against large alone": "−0.3points; 95% interval −0.9 to +0.2",
        "Certified loss": "≤ 2 pointswith a probability of at least 90%",
        "Cost saved": "63.9%the small side's own cost included",
        "Forgetting": "2.1points lost since each task was learned",
    }


def test_a_missing_key_figure_says_why(result) -> None:
    result["kcm"]["overall"] |= {"forgetting_first": None, "cost_saved": None}
    keys = key_figures(header(result, "reviews"))
    assert keys["Forgetting"] == "–needs at least two tasks"
    assert keys["Cost saved"] == "–not measured in this run"


def test_no_loss_is_promised_where_all_is_escalated(result) -> None:
    result["certificate"] |= {"decision": "escalate_all", "threshold": None, "reason": "too few rows"}
    assert key_figures(header(result, "reviews"))["Certified loss"] == "–too few rows"


def test_an_ordinary_run_has_no_box_of_notices(result) -> None:
    assert "notices" not in header(result, "reviews")
    result["bad_rows"] = 2
    assert "2 rows could not be used and were left out." in header(result, "reviews")
