"""The report's figures: numbers in, a chart with its title and sentence out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kcm.report.chart import Chart, Kind, rows_scale, scale
from kcm.report.formats import interval, known, number, percent
from kcm.report.reading import (
    Columns,
    Numbers,
    Who,
    collaborators,
    deployed,
    filled_bins,
    names_of,
    sides,
    task_names,
    tested,
)
from kcm.report.words import epsilon_words

SHAPES: dict[Who, Kind] = {"kcm": "circle", "mcm": "diamond", "quadratic": "hollow circle", "linear": "square"}
SMALLEST_P = 1e-4  # anything below is drawn here: what matters happens near delta
_CALLS = scale("call rate: share of inputs sent to the large model", "percent", (0.0, 1.0))


def frontier(frontiers: Mapping[str, Columns], result: Numbers) -> Chart:
    """Accuracy against calls at every threshold, with deployed points, the large model alone, and the oracle."""
    title, names = "Accuracy against calls to the large model", names_of(result)
    chart = Chart(title, "No frontier was measured.", _CALLS, scale("accuracy", "percent"))
    if not any(frontiers.values()):
        return chart
    first, sentences = deployed(result)[1], []
    large, oracle = first["overall"].get("large_accuracy"), first.get("routing") or {}
    chart.draw("dashed", "large", [{"y": large}], "large alone")
    for who in (who for who in names if who in frontiers):
        curve = sorted(zip(frontiers[who]["call_rate"], frontiers[who]["accuracy"], strict=True))
        chart.draw("line", who, [{"x": x, "y": y} for x, y in curve], f"{names[who]}, any threshold")
    for who, row in ((who, each["overall"]) for who, each in collaborators(result).items()):
        rate, accuracy, bounds = row.get("call_rate"), row.get("cascade_accuracy"), row.get("cascade_accuracy_interval")
        low, high = bounds or (None, None)
        tip = f"{names[who]} deployed: {percent(accuracy)} ({interval(bounds)}) at a call rate of {percent(rate)}"
        chart.draw("line", who, [{"x": rate, "y": low, "y2": high}], opacity=0.7)
        chart.draw(SHAPES[who], who, [{"x": rate, "y": accuracy, "tip": tip}], f"{names[who]} deployed", size=120)
        sentences.append(f"{tip}.")
    rate, accuracy = oracle.get("oracle_call_rate"), oracle.get("oracle_accuracy")
    tip = f"oracle router: {percent(accuracy)} at a call rate of {percent(rate)}"
    chart.draw("hollow circle", "large", [{"x": rate, "y": accuracy, "tip": tip}], "oracle router")
    sentences.append(f"Large alone: {percent(large)}. The left end of a curve is the small model alone.")
    if any((each.get("policy") or {}).get("task_decisions") for each in collaborators(result).values()):
        sentences.append("Thresholds per task may leave the curve, which has one for all.")
    chart.sentence = " ".join(sentences)
    return chart


def certificate_path(path: Columns, certificate: Numbers) -> Chart:
    """p-values of the certificate's own test against the thresholds, with delta and the deployed threshold."""
    y = scale("p-value", "number", (SMALLEST_P, 1.0), values=[1, 0.1, 0.01, 0.001, SMALLEST_P])
    y["scale"] |= {"type": "log"}
    reason = f"No threshold was tested: {certificate.get('reason') or 'no rows'}."
    chart = Chart("Which thresholds hold", reason, scale("threshold on the gate score", "number"), y)
    rows, lowest, delta = tested(path), certificate.get("certified") or {}, certificate.get("delta")
    if not rows:
        return chart
    first, last = rows[0]["threshold"], rows[-1]["threshold"]
    start = {"threshold": lowest.get("threshold"), "keep_all": last}.get(lowest.get("decision", ""))
    chart.draw("band", "kcm", [{"x": start, "x2": first}] if start is None or start < first else [], "certified")
    chart.draw("dashed", "limit", [{"y": delta and max(delta, SMALLEST_P)}], f"δ = {number(delta)}")
    values = [{"x": row["threshold"], "y": min(max(row["p_value"], SMALLEST_P), 1.0)} for row in rows]
    deployed_at = certificate.get("threshold")
    method = {"auto": "regret or net"}.get(str(path["method"]), str(path["method"]))
    chart.draw("line", "kcm", values, f"p-value, by {method}")
    chart.draw("dashed", "ink", [{"x": deployed_at}], f"deployed threshold, {number(deployed_at)}")
    credited = {"net": "credited", "regret": "not credited"}.get(method, "credited by net alone")
    chart.sentence = (
        f"The p-value of “the loss exceeds {epsilon_words(certificate)}” by the test {method}, wins of the small model"
        f" {credited}. It is read from strict (right) to lenient (left): what comes before the first p-value above"
        " δ is certified."
    )
    return chart


def reliability(bins: Mapping[str, Sequence[Numbers]], result: Numbers) -> Chart:
    """Accuracy against confidence per bin, beside the diagonal; the area of a mark is its share of the rows."""
    title, reason = "How far confidence can be trusted", "Confidence was not compared with accuracy."
    chart = Chart(title, reason, scale("confidence", "percent"), scale("accuracy", "percent"))
    sentences = []
    for who, name in names_of(result).items():
        filled = filled_bins(bins.get(who, ()))
        total = sum(b["count"] for b in filled)
        marks: list[dict[str, Any]] = []
        for b in filled:
            sure, right, share = percent(b["confidence"]), percent(b["accuracy"]), b["count"] / total
            tip = f"{name}, {percent(share)} of the rows: {sure} sure, {right} right"
            marks.append({"x": b["confidence"], "y": b["accuracy"], "size": 30 + 600 * share, "tip": tip})
        chart.draw("line", who, [{"x": mark["x"], "y": mark["y"]} for mark in marks], opacity=0.45)
        chart.draw(SHAPES[who], who, marks, name, opacity=0.75)
        if telling := [b for b in filled if b["count"] >= 0.02 * total]:
            worst = max(telling, key=lambda b: abs(b["confidence"] - b["accuracy"]))
            sure, right = percent(worst["confidence"], 0), percent(worst["accuracy"], 0)
            sentences.append(f"{name}: furthest off where {sure} sure, and right {right} of the time.")
    if chart.layers:
        low = min(row["x"] for layer in chart.layers for row in layer["data"]["values"])
        chart.draw("dashed", "large", [{"x": at, "y": at} for at in (low, 1.0)], "as sure as right", type="line")
    chart.sentence = " ".join([*sentences, "Larger marks hold more rows."])
    return chart


def accuracy_matrix(who: Who, result: Numbers) -> Chart:
    """R as a heat map: a row per learned task, a column per tested task; shades are the same for all collaborators."""
    tasks, name = task_names(result), names_of(result)[who]
    learned = rows_scale([f"{number + 1} {task}" for number, task in enumerate(tasks)])
    tests = {**rows_scale([str(number + 1) for number in range(len(tasks))]), "title": "tested on"}
    title, reason = f"Accuracy matrix of {name}", "No accuracy was measured task by task."
    chart = Chart(title, reason, tests, learned, len(tasks))
    matrices = sides(result, "accuracy_matrix")
    values = [value for matrix in matrices.values() for row in matrix for value in row if known(value)]
    low, room = min(values, default=0.0), max(values, default=1.0) - min(values, default=0.0)
    cells, texts = [], []
    for i, row in enumerate(matrices.get(who, ())):
        for j, value in enumerate(row):
            place = {"x": str(j + 1), "y": f"{i + 1} {tasks[i]}"}
            if known(value) and j <= i:
                cells.append({**place, "shade": (value - low) / room if room else 0.5})
            tip = f"learned up to {tasks[i]}, tested on {tasks[j]}: {percent(value)}"
            texts.append({**place, "text": percent(value).removesuffix("%"), "tip": tip})
    chart.draw("cell", "kcm", cells)
    chart.draw("text", "ink", texts, fontSize=13 if len(tasks) <= 10 else 9)
    chart.sentence = (
        "Accuracy in percent after learning the task of the row, on the task of the column. Without a shade: not"
        " learned yet."
    )
    return chart


def simulation(periods: Sequence[Numbers]) -> Chart:
    """What was saved, what was right, and what was kept of labels that were not known, before each turn of a loop."""
    chart = Chart(
        "What the loop came to",
        "Nothing was played.",
        scale("turn", "number"),
        scale("share of the items", "percent", (0.0, 1.0)),
        sentence="each point is the traffic before a turn, answered by the champion of then",
    )
    lines: list[tuple[str, str, str, Kind, Who]] = [
        ("kept", "items", "calls saved", "circle", "kcm"),
        ("right", "items", "right answers of the cascade", "square", "linear"),
        ("late_kept", "late", "kept of labels that nobody had named", "diamond", "mcm"),
    ]
    for part, whole, words, shape, tone in lines:
        counted = [(number, each[part] / each[whole]) for number, each in enumerate(periods, 1) if each[whole]]
        marks = [{"x": x, "y": y, "tip": f"turn {x}: {percent(y)}, {words}"} for x, y in counted]
        chart.draw("line", tone, [{"x": x, "y": y} for x, y in counted], opacity=0.6)
        chart.draw(shape, tone, marks, words)
    return chart
