"""The paper's claims, one table: fewer calls, less forgetting, a better tail, fewer hallucinations, readable.

    python benchmarks/verdict.py         from the committed results, as Markdown

Each row gives KCM's figure and KCM less its controls, which differ in nothing but the networks: MCM (an MLP of as many
parameters), a linear map, frozen random ReLU units of as many parameters. Intervals are 95%, paired over seeds unless
the row says over what. Rows with `quadratic basis` are of KCM with parabolas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, product
from statistics import mean
from typing import Any

from benchmarks.script import read

CONTROLS = {"MCM": "mlp", "linear": "linear", "ReLU": "random_relu"}
OVER_SPLITS = {
    "saved": "calls saved as deployed, at most 2 points lost",
    "saved_at_0.01": "calls saved at one point lost",
    "area": "area under the deferral curve",
}
TABLES = {"emoji": "emoji", "fashion": "Fashion-MNIST", "fashion-tail": "Fashion-MNIST, long tail"}
METRICS = {"average_accuracy": "final accuracy", "tail": "tail third"}
Results = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A row: KCM's figure, and what KCM has more than each control, both in percent, as text."""

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
    """Calls saved over splits: the demo and pictures. The gate has a table of its own."""
    pictures = {TABLES[row]: found for row, found in read("modalities")["rows"].items() if "splits" in found}
    tables = {"reviews": read("routing")["splits"], **pictures}
    for (table, found), (figure, what) in product(tables.items(), OVER_SPLITS.items()):
        sides = found["sides"]
        controls = {"linear": sides["linear"], "ReLU": sides["mcm"]}
        over = {name: points(over_splits(side, figure)) for name, side in controls.items()}
        value, splits = percent(sides["kcm"][figure]), f"{found['splits']} splits"
        yield Figure("fewer calls", f"{table}: {what}", value, over, splits)
    stepped = read("routing")["by_steps"]["calls_saved"]
    what = "reviews, one split, replay by AdamW: calls saved as deployed"
    yield Figure("fewer calls", what, percent(stepped["kcm"]), {"MCM": points(stepped["kcm_minus_mcm"])}, "10")


def over_splits(control: Results, figure: str) -> dict[str, float]:
    """What KCM has more than a control, over splits."""
    return three(control["kcm_minus"][figure])


def learned(claim: str, tables: Results, name: str, metric: str) -> Iterator[Figure]:
    """The rows of a table of learners that were named beforehand: with more seeds than three, or all of a table."""
    table = tables.get(name)
    for cell in table["cells"] if table else ():
        found = cell["aggregated"][metric]
        if cell["network"] != "kan" or found is None or (found["num_seeds"] <= 3 and not name.endswith("-ace")):
            continue
        yield Figure(
            claim,
            f"{name}: {METRICS[metric]}, {_learner(cell)}",
            percent(found["mean"]),
            over_controls(table, cell, metric),
            str(found["num_seeds"]),
        )


def forgotten(tables: Results) -> Iterator[Figure]:
    """Points forgotten, fewer being better, in the rows of asymmetric cross-entropy and of AdamW."""
    for name in ("clinc-ace", "clinc"):
        for cell in tables.get(name, {}).get("cells", ()):
            if cell["network"] == "kan" and cell["learner"] == "replay" and cell["memory_per_class"] == 2:
                found = cell["aggregated"]["forgetting_first"]
                over = over_controls(tables[name], cell, "forgetting_first")
                what = f"{name}: points forgotten (fewer is better), {_learner(cell)}"
                yield Figure("less forgetting", what, percent(found["mean"]), over, str(found["num_seeds"]))


def fashion() -> Iterator[Figure]:
    """Few-shot accuracy on the long tail of Fashion-MNIST."""
    if found := read("modalities").get("rows", {}).get("fashion-long-tail"):
        few = found["cells"]["kan"]["few"]
        over = {"MCM": points(found["kan_minus_mlp"]["few"])}
        what = "Fashion-MNIST, imbalance 100: classes under 20 rows, replay"
        yield Figure("a better tail", what, percent(few["mean"]), over, "10")


def hinted() -> Iterator[Figure]:
    """Accuracy of the cascade whose large model is told what the small one says."""
    found = read("hints")
    for policy, what, name in (
        ("half", "half escalated", "soft hints, less sure half"),
        ("best", "best threshold", "soft hints, threshold by validate rows"),
    ):
        right = mean(own[f"{policy}: soft"] for own in found["KCM"]["tables"].values())
        gain = points(found["KCM"]["differences"][name]["pooled"])
        what = f"{found['model']}, three tables: cascade with soft hints, {what}; less without hints: {gain}"
        yield Figure("fewer hallucinations", what, percent(right), {}, f"{found['splits']} splits")


def readable() -> Iterator[Figure]:
    """How much of a deployed gate a person has to read."""
    if tables := read("gates"):
        curves, parameters = (max(table[key] for table in tables.values()) for key in ("curves", "parameters"))
        what = "the gate signals whole: curves, each of one direction, and fitted numbers"
        yield Figure("readable", what, f"{curves} curves, {parameters} numbers")


def over_controls(table: Results, cell: Results, metric: str) -> dict[str, str]:
    """What the KAN of a cell has more than each control in its row, paired by seed."""
    place = (cell["learner"], cell["memory_per_class"])
    found = {
        each["second"]: each[metric]
        for each in table["differences"]
        if (each["learner"], each["memory_per_class"]) == place and each["first"] == "kan" and each[metric]
    }
    # In closed form the control of the place `mlp` is made of random ReLU units.
    closed = cell["learner"] in ("analytic", "slda")
    names = {"ReLU": "mlp", "linear": "linear"} if closed else CONTROLS
    seeds = cell["aggregated"][metric]["num_seeds"]
    return {control: _paired(found[network], seeds) for control, network in names.items() if network in found}


def _paired(found: Results, seeds: int) -> str:
    """An interval, with its number of seeds where that is not the row's."""
    paired = found["degrees_of_freedom"] + 1
    return points(found) + ("" if paired == seeds else f", {paired} seeds")


def _learner(cell: Results) -> str:
    setting = cell.get("setting") or {}
    parts = [cell["learner"]]
    if cell["memory_per_class"] is not None:
        parts.append(f"{cell['memory_per_class']:g} rows a class")
    if setting.get("network", {}).get("basis") == "quadratic":
        parts.append("quadratic basis")
    if (base := setting.get("network", {}).get("base", "none")) != "none":
        parts.append(f"on {base}")
    return ", ".join(parts)


def three(ends: Sequence[float]) -> dict[str, float]:
    """A mean and its ends, by name."""
    return dict(zip(("estimate", "low", "high"), ends, strict=True))


def percent(share: float) -> str:
    """0.5273 as 52.7."""
    return f"{100 * share:.1f}"


def points(found: Results) -> str:
    """An interval in percentage points, whichever way its ends are stored."""
    low, high = found["interval"] if "interval" in found else (found["low"], found["high"])
    return f"{100 * found['estimate']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def markdown(rows: list[Figure]) -> str:
    """The table of docs/results.md; a claim stands in its first row."""
    lines = ["| claim | figure | KCM | − MCM | − linear | − ReLU | seeds |", "|---|---|---|---|---|---|---|"]
    for claim, own in groupby(rows, key=lambda row: row.claim):
        for number, row in enumerate(own):
            over = " | ".join(row.over.get(name, "") for name in CONTROLS)
            lines.append(f"| {'' if number else claim} | {row.what} | {row.kcm} | {over} | {row.seeds} |")
    return "\n".join(lines).replace("+-", "-").replace(" -", " −").replace("(-", "(−")


if __name__ == "__main__":
    print(markdown(list(figures())))
