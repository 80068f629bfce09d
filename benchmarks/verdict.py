"""The paper's claims, one table: fewer calls, less forgetting, a better tail, fewer hallucinations, readable.

    python benchmarks/verdict.py         from the committed results, as Markdown

Each row gives KCM's figure and KCM less its controls, which differ in nothing but the networks: MCM (an MLP of as many
parameters), a linear map, frozen random ReLU units of as many parameters. Intervals are 95%, paired over seeds unless
the row says over what. Rows with the words `quadratic features` have these in KCM's place, which had their name then.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from script import read

DEMO = Path(__file__).parents[1] / "docs" / "demo.md"
CONTROLS = {"MCM": "mlp", "linear": "linear", "ReLU": "random_relu"}
METRICS = {"average_accuracy": "final average accuracy", "tail": "accuracy on the tail third"}
Results = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A row: KCM's figure, and KCM's advantage over each control, both in percent, as text."""

    claim: str
    what: str
    kcm: str
    over: Mapping[str, str] = field(default_factory=dict)
    seeds: str = ""


def figures() -> Iterator[Figure]:
    """All rows that the committed results have figures for, claim by claim."""
    yield from fewer_calls()
    continual = read("continual")["tables"]
    for name in ("clinc-ace", "clinc", "reviews", "digits"):
        yield from learned("less forgetting", continual, name, "average_accuracy")
    yield from forgotten(continual)
    for name in ("clinc-tail-ace", "clinc-tail"):
        yield from learned("a better tail", continual, name, "tail")
    yield from fashion()
    yield from hinted()
    yield from readable()


def fewer_calls() -> Iterator[Figure]:
    """Calls saved: the demo over seeds, pictures; and what the gate is worth."""
    routing, modalities = read("routing"), read("modalities").get("rows", {})
    if contest := routing.get("kcm_mcm"):
        for figure, description in (
            ("calls_saved", "calls saved as deployed, at most 2 points lost"),
            ("area", "area under the deferral curve"),
        ):
            advantages = {
                "MCM": points(contest["kcm_minus_mlp"][figure]),
                "linear": points(contest[figure]["kcm_minus_linear"]),
                "ReLU": points(contest[figure]["kcm_minus_mcm"]),
            }
            value, seeds = percent(contest[figure]["kcm"]), str(contest["seeds"])
            yield Figure("fewer calls", f"reviews, quadratic features: {description}", value, advantages, seeds)
    if contest := modalities.get("emoji"):
        kcm, mcm = (contest[name]["deployed"]["calls_saved"] for name in ("kcm", "mcm"))
        advantages = {"MCM": f"{100 * (kcm - mcm):+.1f} (one seed)"}
        description = "emoji: calls saved as deployed, at most 2 points lost with 94%"
        yield Figure("fewer calls", description, percent(kcm), advantages, "1")
    for name, table in read("gates").items():
        contest = table["gates"]["signals"]
        advantages = table["differences"]["signals - confidence"]["calls_saved"]
        yield Figure(
            "fewer calls",
            f"{name}: calls saved at half a point lost, gate signals; less plain confidence: {points(advantages)}",
            percent(contest["calls_saved"]),
            {},
            str(table["num_seeds"]),
        )


def demo_rows() -> list[list[str]]:
    """Name, accuracies, difference and calls saved, of the rows `overall` of the demo's table."""
    lines = DEMO.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| overall |"))
    overall = itertools.takewhile(lambda line: line.startswith(("| overall |", "|  |")), lines[first:])
    rows = [[cell.strip() for cell in line.strip("|").split("|")][1:] for line in overall]
    large = rows[0][2]  # the same for all, and written once
    return [[row[0], row[1], large, *row[3:5], row[6]] for row in rows]


def learned(claim: str, tables: Results, name: str, metric: str) -> Iterator[Figure]:
    """The rows of a table of learners that were named beforehand: with more seeds than three, or all of a table."""
    table = tables.get(name)
    for cell in table["cells"] if table else ():
        figure = cell["aggregated"][metric]
        if cell["network"] != "kan" or figure is None or (figure["num_seeds"] <= 3 and not name.endswith("-ace")):
            continue
        yield Figure(
            claim,
            f"{name}: {METRICS[metric]}, {_learner(cell)}",
            percent(figure["mean"]),
            over_controls(table, cell, metric),
            str(figure["num_seeds"]),
        )


def forgotten(tables: Results) -> Iterator[Figure]:
    """Points forgotten, fewer being better, in the rows of asymmetric cross-entropy and of AdamW."""
    for name in ("clinc-ace", "clinc"):
        for cell in tables.get(name, {}).get("cells", ()):
            if cell["network"] == "kan" and cell["learner"] == "replay" and cell["memory_per_class"] == 2:
                figure = cell["aggregated"]["forgetting_first"]
                advantages = over_controls(tables[name], cell, "forgetting_first")
                description = f"{name}: points forgotten (fewer is better), {_learner(cell)}"
                yield Figure(
                    "less forgetting", description, percent(figure["mean"]), advantages, str(figure["num_seeds"])
                )


def fashion() -> Iterator[Figure]:
    """Few-shot accuracy on the long tail of Fashion-MNIST."""
    if row := read("modalities").get("rows", {}).get("fashion-long-tail"):
        accuracies = row["cells"]["kan"]["few"]
        advantages = {"MCM": points(row["kan_minus_mlp"]["few"])}
        description = "Fashion-MNIST, imbalance 100: accuracy on classes of under 20 rows, replay"
        yield Figure("a better tail", description, percent(accuracies["mean"]), advantages, "10")


def hinted() -> Iterator[Figure]:
    """Accuracy of the cascade whose large model gets the small model's answer as a hint."""
    hint_results = read("hints")
    for policy, description, name in (
        ("half", "half escalated", "soft hints, less sure half"),
        ("best", "best threshold", "soft hints, threshold by validate rows"),
    ):
        accuracy = mean(figures[f"{policy}: soft"] for figures in hint_results["KCM"]["tables"].values())
        gain = points(hint_results["KCM"]["differences"][name]["pooled"])
        description = (
            f"{hint_results['model']}, three tables: cascade with soft hints, {description}; less without hints: {gain}"
        )
        yield Figure("fewer hallucinations", description, percent(accuracy), {}, f"{hint_results['splits']} splits")


def readable() -> Iterator[Figure]:
    """How much of a deployed gate a person has to read."""
    if tables := read("gates"):
        curves, parameters = (max(table[key] for table in tables.values()) for key in ("curves", "parameters"))
        description = "the gate signals whole: curves, each of one direction, and fitted numbers"
        yield Figure("readable", description, f"{curves} curves, {parameters} numbers")


def over_controls(table: Results, cell: Results, metric: str) -> dict[str, str]:
    """What the KAN of a cell has more than each control in its row, paired by seed."""
    place = (cell["learner"], cell["memory_per_class"])
    advantages = {
        difference["second"]: difference[metric]
        for difference in table["differences"]
        if (difference["learner"], difference["memory_per_class"]) == place
        and difference["first"] == "kan"
        and difference[metric]
    }
    # In closed form the control of the place `mlp` is made of random ReLU units.
    is_closed_form = cell["learner"] in ("analytic", "slda")
    names = {"ReLU": "mlp", "linear": "linear"} if is_closed_form else CONTROLS
    seeds = cell["aggregated"][metric]["num_seeds"]
    return {control: _paired(advantages[network], seeds) for control, network in names.items() if network in advantages}


def _paired(difference: Results, seeds: int) -> str:
    """An interval, with its number of seeds if it differs from the row's."""
    paired = difference["degrees_of_freedom"] + 1
    return points(difference) + ("" if paired == seeds else f", {paired} seeds")


def _learner(cell: Results) -> str:
    setting = cell.get("setting") or {}
    parts = [cell["learner"]]
    if cell["memory_per_class"] is not None:
        parts.append(f"{cell['memory_per_class']:g} rows a class")
    if setting.get("network", {}).get("basis") == "quadratic":
        parts.append("quadratic features")
    if (base := setting.get("network", {}).get("base", "none")) != "none":
        parts.append(f"on {base}")
    return ", ".join(parts)


def percent(share: float) -> str:
    """0.5273 as 52.7."""
    return f"{100 * share:.1f}"


def points(figure: Results) -> str:
    """An interval in percentage points, whichever way its ends are stored."""
    low, high = figure["interval"] if "interval" in figure else (figure["low"], figure["high"])
    return f"{100 * figure['estimate']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def markdown(rows: list[Figure]) -> str:
    """The table as it stands in the docs."""
    lines = ["| claim | figure | KCM | − MCM | − linear | − ReLU | seeds |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        advantages = " | ".join(row.over.get(name, "") for name in CONTROLS)
        lines.append(f"| {row.claim} | {row.what} | {row.kcm} | {advantages} | {row.seeds} |")
    return "\n".join(lines).replace("+-", "-").replace(" -", " −").replace("(-", "(−")


if __name__ == "__main__":
    print(markdown(list(figures())))
