"""The top of the page: the run in one sentence, what must be said with it, and six key figures."""

from __future__ import annotations

from kcm.report.drawing.markup import Html, element
from kcm.report.text import words
from kcm.report.text.formats import known, percent, points_interval
from kcm.report.text.glossary import metric
from kcm.report.text.reading import Numbers, certificate_of, deployed, is_certified


def header(result: Numbers, name: str) -> Html:
    """Name, headline, control, notices and key figures of a run."""
    notices = [element("li", notice) for notice in words.notices(result)]
    return element(
        "header",
        element("p", "KCM run report", class_="eyebrow"),
        element("h1", element("bdi", name)),
        element("p", words.headline(result), class_="headline"),
        element("p", words.control(result), class_="control"),
        element("ul", *notices, class_="notices") if notices else None,
        key_figures(result),
    )


def key_figures(result: Numbers) -> Html:
    """What the deployed collaborator saves, reaches and promises."""
    overall = deployed(result)[1]["overall"]
    small, large = percent(overall.get("small_accuracy")), percent(overall.get("large_accuracy"))
    bounds = points_interval(overall.get("difference_interval"))
    figures = [
        _measured("Calls saved", overall, "calls_saved", f"call rate {percent(overall.get('call_rate'))}"),
        _measured("Cascade accuracy", overall, "cascade_accuracy", f"large alone {large}, small alone {small}"),
        _measured("Against large alone", overall, "difference", f"points; 95% interval {bounds}"),
        _certified(certificate_of(result)),
        _measured("Cost saved", overall, "cost_saved", "the small side's own cost included"),
        _measured("Forgetting", overall, "forgetting_first", "points lost since each task was learned"),
    ]
    return element("dl", *figures, class_="keys")


def _measured(name: str, overall: Numbers, key: str, below: str) -> Html:
    value = overall.get(key)
    return _key(name, metric(key).show(value), below if known(value) else metric(key).reason)


def _certified(certificate: Numbers) -> Html:
    if not is_certified(certificate):
        return _key("Certified loss", "–", str(certificate.get("reason") or "nothing was certified"))
    below = f"with a probability of at least {words.confidence_words(certificate)}"
    return _key("Certified loss", f"≤ {words.epsilon_words(certificate)}", below)


def _key(name: str, value: str, below: str) -> Html:
    return element("div", element("dt", name), element("dd", value, element("small", below)))
