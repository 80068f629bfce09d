"""The report's tables: outcomes, metrics, the accuracy matrix, settings, trials and stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kcm.report.drawing.markup import Html, element, join
from kcm.report.text.formats import (
    MISSING,
    duration,
    interval,
    is_interval,
    known,
    lost_points,
    number,
    percent,
    points_interval,
)
from kcm.report.text.glossary import metric
from kcm.report.text.reading import NAMES, Numbers, Who, certificates, outcomes
from kcm.report.text.words import decision

_LONG = 48  # characters of a fact that gets a line of its own
_OUTCOME_KEYS = ("small_accuracy", "cascade_accuracy", "difference", "call_rate", "calls_saved", "cost_saved")


def outcome_table(result: Numbers) -> Html:
    """All tasks together, then every task: the large model, and a row for each collaborator."""
    blocks = outcomes(result)
    head = _head("Task", metric("large_accuracy").label, "Collaborator", *(metric(key).label for key in _OUTCOME_KEYS))
    bodies = [
        element("tbody", *_outcome_rows(name, rows), class_=None if index else "total")
        for index, (name, rows) in enumerate(blocks)
    ]
    caption = (
        "On the test split, with 95% intervals below the figures. The difference is cascade minus large alone on the"
        " same rows; cost counts the small side too."
    )
    shown = ("large_accuracy", *_OUTCOME_KEYS)
    missing = [key for key in shown if any(not known(row.get(key)) for _, rows in blocks for row in rows.values())]
    return _table("Outcomes by task", caption, head, *bodies, missing=missing, style="outcomes")


def _outcome_rows(name: str, rows: Mapping[Who, Numbers]) -> list[Html]:
    first, span = next(iter(rows.values())), str(len(rows))
    size = element("small", f"{number(first.get('num_rows'))} rows")
    lead = (
        element("th", element("bdi", name), size, scope="rowgroup", rowspan=span),
        _estimate(first, "large_accuracy", rowspan=span),
    )
    return [
        element(
            "tr",
            *(lead if row is first else ()),
            element("th", NAMES[who], scope="row", class_=f"who {who}"),
            *(_estimate(row, key) for key in _OUTCOME_KEYS),
        )
        for who, row in rows.items()
    ]


def _estimate(row: Numbers, key: str, rowspan: str | None = None) -> Html:
    bounds = row.get(f"{key}_interval")
    text = points_interval(bounds) if key == "difference" else interval(bounds)
    below = element("small", text) if is_interval(bounds) else None
    return element("td", metric(key).show(row.get(key)), below, rowspan=rowspan)


def metric_table(title: str, values: Mapping[Who, Numbers]) -> Html:
    """One row per metric, one column per collaborator; nested metrics go by dotted names.

    Below it stands why a metric is missing.
    """
    flat = {who: dict(_flat(found)) for who, found in values.items()}
    keys = _keys(flat)
    missing = [key for key in keys if any(not known(found.get(key)) for found in flat.values())]
    rows = [_row(metric(key).label, [metric(key).show(found.get(key)) for found in flat.values()]) for key in keys]
    head = _head("Metric", *(NAMES[who] for who in values))
    return _table(title, title, head, element("tbody", *rows), missing=missing)


def setting_table(title: str, values: Mapping[Who, Numbers]) -> Html:
    """One row per setting, one column per collaborator; nested settings go by dotted names, decisions by words."""
    flat = {who: dict(_flat(found)) for who, found in values.items()}
    rows = [_row(_spaced(key), [_text(found.get(key)) for found in flat.values()]) for key in _keys(flat)]
    return _table(title, title, _head("Setting", *(NAMES[who] for who in values)), element("tbody", *rows))


def certificate_table(certificate: Numbers) -> Html:
    """The decisions of the deployed policy, the common one first, each with what is promised of it."""
    found = certificates(certificate)
    rows = [
        element(
            "tr",
            element(
                "th", element("bdi", task or ("All other inputs" if len(found) > 1 else "All inputs")), scope="row"
            ),
            element("td", decision(each), class_="left"),
            element("td", lost_points(each.get("bound"))),
            element("td", number(each.get("num_rows"))),
            element("td", number(each.get("delta"))),
            element("td", _text(each.get("method")), class_="left"),
            element("td", _text(each.get("valid")), class_="left"),
            element("td", _text(each.get("reason")), _statement(each), class_="left reason"),
        )
        for task, each in found.items()
    ]
    head = _head("For", "Decision", "Loss at most, points", "Certify rows", "δ spent", "Test", "Holds", "Reason")
    caption = "What is deployed and what is promised of it: “loss at most” is the upper confidence bound at its δ."
    return _table("Certificates", caption, head, element("tbody", *rows), style="certificates")


def _statement(certificate: Numbers) -> Html | None:
    """What a certificate of traffic promises of its window and of what comes after it."""
    statement = certificate.get("statement")
    return element("small", str(statement)) if statement else None


def accuracy_matrix(
    who: Who, matrix: Sequence[Sequence[float | None]], names: Sequence[str], low: float, high: float
) -> Html:
    """R as a heat map: a row per learned task, a column per tested task; shades run from `low` to `high` in tenths."""
    heads = (element("abbr", str(index + 1), title=name) for index, name in enumerate(names))
    columns = (element("th", text, scope="col") for text in heads)
    rows = (
        element(
            "tr",
            element("th", f"{i + 1} ", element("bdi", names[i]), scope="row", title=names[i]),
            *(_heat(value, low, high, _place(i, j)) for j, value in enumerate(row)),
        )
        for i, row in enumerate(matrix)
    )
    caption = join(
        element("b", NAMES[who], class_=f"who {who}"),
        ": accuracy in percent after learning the task of the row, on the task of the column."
        " Without a shade: not learned yet.",
    )
    head = element("thead", element("tr", element("th", "Learned", scope="col"), *columns))
    return _table(f"Accuracy matrix of {NAMES[who]}", caption, head, element("tbody", *rows), style="matrix")


def _place(learned: int, tested: int) -> str | None:
    if learned == tested:
        return "now"
    return "ahead" if tested > learned else None


def _heat(value: float | None, low: float, high: float, place: str | None) -> Html:
    if not known(value):
        return element("td", MISSING, class_="ahead")
    heat = (value - low) / (high - low) if high > low else 0.5
    shade = f"heat-{round(10 * heat)}"  # a class: pages that forbid inline styles show the matrix, too
    return element("td", f"{100 * value:.1f}", class_=f"{place} {shade}" if place else shade)


def pareto_table(front: Sequence[Numbers]) -> Html:
    """The trials that no other beats in both objectives, with what they chose; most calls saved first."""
    rows = [
        element(
            "tr",
            element("th", str(trial["number"]), scope="row"),
            element("td", NAMES[trial["collaborator"]], class_=f"who {trial['collaborator']}"),
            element("td", percent(trial["calls_saved"])),
            element("td", number(trial["area"])),
            element(
                "td", *(element("code", f"{name} {_text(v)}") for name, v in trial["params"].items()), class_="left"
            ),
        )
        for trial in sorted(front, key=lambda trial: (-trial["calls_saved"], -trial["area"]))
    ]
    head = _head("Trial", "Collaborator", "Calls saved", "Area", "Choices")
    return _table("Pareto front", "The Pareto front, on validate.", head, element("tbody", *rows), style="trials")


def stage_table(seconds: Numbers, cached: Numbers, lineage: Mapping[str, str]) -> Html:
    """What ran, for how long, and the fingerprint of what it wrote."""
    measured = [time for time in seconds.values() if known(time)]
    rows = [
        element(
            "tr",
            element("th", stage, scope="row"),
            element("td", _timed(seconds.get(stage), max(measured, default=0.0))),
            element("td", _origin(cached.get(stage))),
            element("td", element("code", lineage[stage]) if stage in lineage else MISSING),
        )
        for stage in dict.fromkeys([*seconds, *lineage])
    ]
    head = _head("Stage", "Time", "Result", "Fingerprint")
    caption = f"The stages of the run, {duration(sum(measured))} in all."
    return _table("Stages", caption, head, element("tbody", *rows), style="stages")


def _origin(cached: bool | None) -> str:
    if cached is None:
        return MISSING
    return "from the cache" if cached else "computed"


def _timed(seconds: float | None, longest: float) -> Html:
    share = seconds / longest if known(seconds) and longest > 0 else 0.0
    bar = element("span", class_="bar", style=f"--width: {100 * share:.1f}%")
    return element("span", duration(seconds), bar, class_="timed")


def facts(values: Mapping[str, Any]) -> Html:
    """Names and values as a description list."""
    entries = (_fact(name, _text(value)) for name, value in values.items())
    return element("dl", *entries, class_="facts")


def _fact(name: str, text: str) -> Html:
    style = "wide" if len(text) > _LONG else None
    return element("div", element("dt", name), element("dd", element("bdi", text)), class_=style)


def _keys(values: Mapping[Who, Numbers]) -> list[str]:
    return list(dict.fromkeys(key for found in values.values() for key in found))


def _flat(values: Numbers, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if not isinstance(value, Mapping):
            found.append((f"{prefix}{name}", value))
        elif "decision" in value:
            found.append((f"{prefix}{name}", decision(value)))
        else:
            found += _flat(value, f"{prefix}{name}.")
    return found


def _spaced(name: str) -> str:
    """A setting's own name in words; what follows a dot may be a task's name and stays."""
    own, dot, rest = name.partition(".")
    return own.replace("_", " ") + dot + rest


def _text(value: Any) -> str:
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value)


def _row(name: str, cells: Sequence[str]) -> Html:
    return element("tr", element("th", name, scope="row"), *(element("td", cell) for cell in cells))


def _head(*names: str) -> Html:
    cells = (element("th", name, scope="col") for name in names)
    return element("thead", element("tr", *cells))


def _table(name: str, caption: str, *parts: Html, missing: Sequence[str] = (), style: str | None = None) -> Html:
    """A table in a frame that scrolls sideways, by keyboard too; below it, why metrics are missing."""
    table = element("table", element("caption", element("span", caption)), *parts, class_=style)
    frame = element("div", table, class_="scroll", role="region", tabindex="0", aria_label=name)
    if not missing:
        return frame
    return element("div", frame, element("ul", *_reasons(missing), class_="notes"))


def _reasons(missing: Sequence[str]) -> list[Html]:
    """One line per reason, with the metrics that it explains."""
    labels: dict[str, list[str]] = {}
    for key in missing:
        labels.setdefault(metric(key).reason, []).append(metric(key).label.removesuffix(", points"))
    return [element("li", f"{', '.join(found)}: {reason}.") for reason, found in labels.items()]
