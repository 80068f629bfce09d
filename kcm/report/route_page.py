"""The report of `kcm route`: what a table of logged answers says about routing, in one HTML file without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kcm.report import figures, tables
from kcm.report.drawing.markup import Html, element, join
from kcm.report.page import document
from kcm.report.text.formats import interval, percent, points, points_interval
from kcm.report.text.glossary import metric
from kcm.report.text.reading import Numbers, Who
from kcm.report.text.words import confidence_words, decision, epsilon_words

_CASCADE: dict[Who, str] = {"kcm": "cascade"}
_SMALL: dict[Who, str] = {"kcm": "small model"}


@dataclass(frozen=True)
class RouteReportInputs:
    """Everything the page shows.

    `certificate`: what `kcm route certify` found, its `test` None without test rows. `quality`: the router's metrics
    on test by name. `frontier`: the columns `call_rate` and `accuracy` on test. `reliability`: bins with `confidence`,
    `accuracy` and `count`; empty for a score that is no probability. `certificate_path` as in `ReportInputs`.
    """

    name: str
    certificate: dict[str, Any]
    quality: dict[str, Any]
    frontier: dict[str, list[float]]
    reliability: list[dict[str, Any]]
    certificate_path: dict[str, list[float]]
    columns: dict[str, Any]
    machine: str


def render_route_report(inputs: RouteReportInputs) -> str:
    """The page as HTML; text from data is escaped."""
    certificate, result = inputs.certificate, _as_result(inputs)
    frontiers = {"kcm": inputs.frontier} if inputs.frontier else {}
    contents = {
        "Accuracy and cost": _pair(figures.frontier(frontiers, result, _CASCADE), _on_test(certificate)),
        "Certificate": join(
            _pair(
                figures.certificate_path(inputs.certificate_path, certificate),
                figures.regret(inputs.certificate_path, certificate),
            ),
            tables.certificate_table(certificate),
        ),
        "Score and confidence": _pair(figures.reliability({"kcm": inputs.reliability}, _SMALL), _quality(inputs)),
        "Table": tables.facts(inputs.columns),
    }
    return document(inputs.name, _header(inputs), contents, inputs.machine)


def _header(inputs: RouteReportInputs) -> Html:
    certificate = inputs.certificate
    promise = (
        f"At most {epsilon_words(certificate)} of accuracy lost against the large model alone, with a probability of at"
        f" least {confidence_words(certificate)}: {certificate['reason']}."
    )
    remarks: Sequence[str] = [*certificate["warnings"], *certificate["notes"]]
    return element(
        "header",
        element("p", "KCM routing report", class_="eyebrow"),
        element("h1", element("bdi", inputs.name)),
        element("p", f"Decision: {decision(certificate)}.", class_="headline"),
        element("p", promise, class_="control"),
        element("ul", *(element("li", f"{line}.") for line in remarks), class_="notices") if remarks else None,
    )


def _on_test(certificate: Numbers) -> Html:
    """What the deployed route does on rows that neither search nor certificate has seen."""
    test = certificate["test"]
    if test is None:
        return element("p", "There are no test rows to measure on.")
    return tables.facts(
        {
            "Test rows": test["num_rows"],
            "Call rate": percent(test["call_rate"]),
            "Cost saved": percent(test["cost_saved"]),
            "Cascade": f"{percent(test['cascade']['estimate'])} ({interval(_ends(test['cascade']))})",
            "Large alone": f"{percent(test['large']['estimate'])} ({interval(_ends(test['large']))})",
            "Small alone": f"{percent(test['small']['estimate'])} ({interval(_ends(test['small']))})",
            "Cascade less large, points": f"{points(test['difference']['estimate'])}"
            f" ({points_interval(_ends(test['difference']))})",
        }
    )


def _quality(inputs: RouteReportInputs) -> Html:
    if not inputs.quality:
        return element("p", "There are no test rows to measure the score on.")
    return tables.facts({metric(key).label: metric(key).show(value) for key, value in inputs.quality.items()})


def _as_result(inputs: RouteReportInputs) -> dict[str, Any]:
    """The deployed point and the oracle, where the figure looks for them in the result of a run."""
    test = inputs.certificate["test"] or {}
    overall = {
        "call_rate": test.get("call_rate"),
        "cascade_accuracy": test["cascade"]["estimate"] if test else None,
        "cascade_accuracy_interval": _ends(test["cascade"]) if test else None,
        "large_accuracy": test["large"]["estimate"] if test else None,
    }
    return {"kcm": {"overall": overall, "routing": inputs.quality}, "certificate": inputs.certificate}


def _ends(found: Mapping[str, float]) -> list[float]:
    return [found["low"], found["high"]]


def _pair(*parts: Html) -> Html:
    return element("div", *parts, class_="pair")
