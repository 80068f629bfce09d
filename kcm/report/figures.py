"""The report's figures: numbers in, a chart with its title and sentence out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kcm.report.chart import Chart, Kind, rows_scale, scale
from kcm.report.formats import interval, known, number, percent, plural, points, points_interval, unsigned_points
from kcm.report.reading import (
    Columns,
    Numbers,
    Who,
    certificate_of,
    collaborators,
    deployed,
    filled_bins,
    first_and_last,
    is_scored,
    names_of,
    outcomes,
    sides,
    task_names,
    tested,
    tested_at,
)
from kcm.report.words import epsilon_words

SHAPES: dict[Who, Kind] = {"kcm": "circle", "mcm": "diamond", "linear": "square"}
HOLLOW: dict[Who, Kind] = {"kcm": "hollow circle", "mcm": "hollow diamond", "linear": "hollow square"}
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


def differences(result: Numbers) -> Chart:
    """Paired differences (cascade minus large) with their intervals, beside zero and the loss that is allowed."""
    rows, certificate, names = outcomes(result), certificate_of(result), names_of(result)
    title, x = "Difference to the large model alone", scale("cascade minus large, points", "signed points")
    reason = "No paired difference was measured."
    chart, sentences = Chart(title, reason, x, rows_scale([name for name, _ in rows]), len(rows)), []
    for who in collaborators(result):
        marks, bars = [], []
        for name, row in ((name, each[who]) for name, each in rows if who in each):
            low, high = row.get("difference_interval") or (None, None)
            tip = f"{name}, {names[who]}: {points(row.get('difference'))} points ({points_interval([low, high])})"
            marks.append({"x": row.get("difference"), "y": name, "lane": who, "tip": tip})
            bars.append({"x": low, "x2": high, "y": name, "lane": who})
        chart.draw("line", who, bars, opacity=0.7)
        chart.draw(SHAPES[who], who, marks, f"{names[who]}, 95% interval")
        sentences.append(f"{marks[0]['tip']}.")
    if chart.layers:
        chart.draw("line", "large", [{"x": 0.0}])
        allowed = [{"x": -epsilon}] if (epsilon := certificate.get("epsilon")) else []
        chart.draw("dashed", "limit", allowed, f"allowed loss, {epsilon_words(certificate)}")
    chart.sentence = " ".join([*sentences, "Left of zero the cascade is less accurate than the large model alone."])
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
    method, deployed_at = str(path.get("method", "regret")), certificate.get("threshold")
    chart.draw("line", "kcm", values, f"p-value, by {method}")
    chart.draw("dashed", "ink", [{"x": deployed_at}], f"deployed threshold, {number(deployed_at)}")
    chart.sentence = (
        f"The p-value of “the loss exceeds {epsilon_words(certificate)}” by the test {method}, wins of the small model"
        f" {_credit(path)}. It is read from strict (right) to lenient (left): what comes before the first p-value above"
        " δ is certified."
    )
    if method != certificate.get("method", method):  # as earlier versions drew it
        chart.sentence += f" The certificate itself was tested by {certificate['method']}."
    return chart


def losses(path: Columns, certificate: Numbers) -> Chart:
    """Accuracy lost on certify against the call rate, its upper bounds, epsilon and the deployed threshold."""
    y, reason = scale("accuracy lost, points", "points"), "There are no tested thresholds."
    chart, rows = Chart("What the certify rows lost", reason, _CALLS, y), tested(path)
    if not rows:
        return chart
    limit = {"y": certificate.get("epsilon")}
    chart.draw("dashed", "limit", [limit], f"allowed loss ε, {epsilon_words(certificate)}")
    bounds = [{"x": row["call_rate"], "y": row.get("bound")} for row in rows]
    chart.draw("line", "mcm", bounds, "upper bound, if chosen beforehand", opacity=0.6)
    chart.draw("line", "kcm", [{"x": row["call_rate"], "y": row["loss"]} for row in rows], "lost on certify")
    if at := tested_at(path, certificate.get("threshold")):
        lost = f"{unsigned_points(at['loss'])} {'lost' if at['loss'] > 0 else 'gained'}"
        tip = f"deployed: {lost} at a call rate of {percent(at['call_rate'])}"
        chart.draw("circle", "kcm", [{"x": at["call_rate"], "y": at["loss"], "tip": tip}], "deployed", size=120)
    chart.sentence = f"Wins of the small model are {_credit(path)}; below zero is a gain."
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


def forgetting(result: Numbers) -> Chart:
    """R[j, j] (hollow) joined with R[T, j] (filled), per task and collaborator."""
    tasks, names, sentences = task_names(result), names_of(result), []
    x, reason = scale("accuracy of the small model", "percent"), "Forgetting needs two tasks, and an accuracy for each."
    chart = Chart("What became of each task", reason, x, rows_scale(tasks), len(tasks))
    for who, each in collaborators(result).items() if len(tasks) > 1 else ():
        own = [(task, *pair) for task, pair in zip(tasks, first_and_last(each), strict=False) if pair]
        learned = [{"x": a, "y": task, "lane": who, "tip": f"{task}, learned: {percent(a)}"} for task, a, _ in own]
        final = [{"x": b, "y": task, "lane": who, "tip": f"{task}, at the end: {percent(b)}"} for task, _, b in own]
        chart.draw("line", who, [{"x": a, "x2": b, "y": task, "lane": who} for task, a, b in own], opacity=0.7)
        chart.draw(HOLLOW[who], who, learned, f"{names[who]} when learned", size=100)
        chart.draw(SHAPES[who], who, final, f"{names[who]} after the last task")
        if own:
            task, first, last = max(own, key=lambda each: each[1] - each[2])
            worst = (
                f"{task} lost the most, {unsigned_points(first - last)}" if first > last else "no task lost accuracy"
            )
            sentences.append(f"{names[who]}: {worst}.")
    chart.sentence = " ".join(sentences)
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


def trials(tried: Sequence[Numbers]) -> Chart:
    """Area under the frontier against calls saved, and the front of trials that no other beats in both."""
    reason = f"None of {len(tried)} trials has a score." if tried else "Tuning did not run."
    x, y = scale("calls saved", "percent"), scale("area under the frontier", "number")
    chart, scored = Chart("What tuning found", reason, x, y), [trial for trial in tried if is_scored(trial)]
    for who, name in names_of({}).items():
        front: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for trial in (trial for trial in scored if trial["collaborator"] == who):
            saved, area = percent(trial["calls_saved"]), number(trial["area"])
            tip = f"{name}, trial {trial['number']}: {saved} saved, area {area}"
            mark = {"x": trial["calls_saved"], "y": trial["area"], "tip": tip}
            (front if trial["pareto"] else others).append(mark)
        chart.draw("line", who, [{"x": mark["x"], "y": mark["y"]} for mark in front], opacity=0.45)
        chart.draw(HOLLOW[who], who, others, f"{name}, other trials", opacity=0.5)
        chart.draw(SHAPES[who], who, front, f"{name}, Pareto front")
    best = percent(max((trial["calls_saved"] for trial in scored), default=None))
    unscored = f" {plural(gone, 'trial')} without a score not drawn." if (gone := len(tried) - len(scored)) else ""
    found = f"{plural(len(tried), 'trial')} on validate. At the loss that tuning allows,"
    chart.sentence = f"{found} the best saves {best} of the calls.{unscored}"
    return chart


def _credit(path: Columns) -> str:
    return "credited" if path.get("method") == "net" else "not credited"
