"""The paper's claims, one table: fewer calls, less forgetting, a better tail, fewer hallucinations, readable.

    python benchmarks/verdict.py                                     from the committed results
    python benchmarks/verdict.py --run clinc -- --clinc data_full.json     measure what stands behind a row again, first

Each row gives KCM's figure and KCM less its controls, which differ in nothing but the networks: MCM (an MLP of as many
parameters), a linear map, frozen random ReLU units of as many parameters. Intervals are 95%, paired over seeds unless
the row says over what. A row says what was tuned, on what, and how often its test rows were read.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continual_plan import data_sets, spaces
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
CONTROLS = {"MCM": "mlp", "linear": "linear", "ReLU": "random_relu"}
ON_HELD_OUT = "{}, of each network alike, on validate rows of held-out streams"
ON_ROWS = "threshold, on validate rows"
ON_VALIDATE = "gate, threshold and rates, on validate rows"
ONCE = "once"
SEVERAL = "several times: see docs/demo.md"
# What --run measures again: the script and its arguments; what follows -- is added.
RUNS: dict[str, tuple[str, ...]] = {
    "clinc": ("continual.py", "--only", "clinc", "--write"),
    "clinc-ace": ("continual.py", "--only", "clinc-ace", "--write"),
    "clinc-tail": ("continual.py", "--only", "clinc-tail", "--write"),
    "clinc-tail-ace": ("continual.py", "--only", "clinc-tail-ace", "--write"),
    "reviews": ("continual.py", "--only", "reviews", "--write"),
    "digits": ("continual.py", "--only", "digits", "--write"),
    "deferral-curve": ("routing.py", "--only", "kcm_mcm", "--write"),
    "emoji": ("modalities.py", "emoji", "--write"),
    "fashion-long-tail": ("modalities.py", "fashion-long-tail", "--write"),
    "gates": ("gates.py", "--write"),
}
Results = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A row: KCM's figure, what KCM has more than each control (both in percent, as text), and how it came about."""

    claim: str
    what: str
    run: str
    kcm: str
    over: Mapping[str, str] = field(default_factory=dict)
    seeds: str = ""
    tuned: str = ""
    reads: str = ONCE


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
    yield Figure("fewer hallucinations", "no language model large enough runs here", "", "not measured")
    yield from readable()


def fewer_calls() -> Iterator[Figure]:
    """Calls saved: the demo as deployed, its deferral curve over seeds, pictures; and what the gate is worth."""
    routing, modalities = read("routing"), read("modalities").get("rows", {})
    kcm_saved, mcm_saved = (float(row[-1]) for row in demo_rows())
    yield Figure(
        "fewer calls",
        "reviews: calls saved as deployed, at most 2 points lost with 94%",
        "",
        f"{kcm_saved:.1f}",
        {"ReLU": f"{kcm_saved - mcm_saved:+.1f} (one seed)"},  # the control of a closed form
        "1",
        ON_VALIDATE,
        SEVERAL,
    )
    if found := routing.get("kcm_mcm"):
        for figure, what, chosen in (
            ("calls_saved", "calls saved by what is certified of plain confidence, at most 2 points lost", ON_ROWS),
            ("area", "area under the deferral curve", "nothing"),
        ):
            over = {
                "MCM": points(found["kcm_minus_mlp"][figure]),
                "ReLU": points(found[figure]["kcm_minus_mcm"]),
            }
            value, seeds = percent(found[figure]["kcm"]), str(found["seeds"])
            yield Figure("fewer calls", f"reviews: {what}", "deferral-curve", value, over, seeds, chosen, SEVERAL)
    if found := modalities.get("emoji"):
        kcm, mcm = (found[name]["deployed"]["calls_saved"] for name in ("kcm", "mcm"))
        over = {"MCM": f"{100 * (kcm - mcm):+.1f} (one seed)"}
        what = "emoji: calls saved as deployed, at most 2 points lost with 94%"
        reads = "twice: see docs/modalities.md"
        yield Figure("fewer calls", what, "emoji", percent(kcm), over, "1", ON_VALIDATE, reads)
    for name, table in read("gates").items():
        found = table["gates"]["signals"]
        over = table["differences"]["signals - confidence"]["calls_saved"]
        yield Figure(
            "fewer calls",
            f"{name}: calls saved at half a point lost, gate signals; less plain confidence: {points(over)}",
            "gates",
            percent(found["calls_saved"]),
            {},
            str(table["num_seeds"]),
            "nothing; thresholds on validate rows",
        )


def demo_rows() -> list[list[str]]:
    """Name, accuracies, difference and calls saved, of the rows `overall` of the demo's table."""
    lines = (HERE.parent / "docs" / "demo.md").read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| overall |"))
    kcm, mcm = ([cell.strip() for cell in line.strip("|").split("|")][1:] for line in lines[first : first + 2])
    mcm[2] = kcm[2]  # the same large model
    return [[row[0], *row[1:5], row[6]] for row in (kcm, mcm)]


def tuned(name: str, learner: str) -> str:
    """What was tried for a learner of a table before its test rows were read."""
    data = {each.name: each for each in data_sets("", None, Path(tempfile.gettempdir()))}[name]
    if not data.tuned:
        return "nothing here: the settings of balanced data"
    _, tried = spaces(data).get(learner, ((), {}))
    names = [key.rpartition(".")[2].replace("_", " ") for key, values in tried.items() if len(values) > 1]
    return ON_HELD_OUT.format(", ".join(names)) if names else "nothing"


def learned(claim: str, tables: Results, name: str, metric: str) -> Iterator[Figure]:
    """The rows of a table of learners that were named beforehand: with more seeds than three, or all of a table."""
    table = tables.get(name)
    for cell in table["cells"] if table else ():
        found = cell["aggregated"][metric]
        if cell["network"] != "kan" or found is None or (found["num_seeds"] <= 3 and not name.endswith("-ace")):
            continue
        yield Figure(
            claim,
            f"{name}: {_metric(metric)}, {_learner(cell)}",
            name,
            percent(found["mean"]),
            over_controls(table, cell, metric),
            str(found["num_seeds"]),
            tuned(name, cell["learner"]),
        )
        yield from at_equal_cpu(claim, table, name, cell, metric)


def at_equal_cpu(claim: str, table: Results, name: str, cell: Results, metric: str) -> Iterator[Figure]:
    """The row once more against as many random ReLU units as take the KAN's CPU time, where that was measured."""
    for each in table["differences"]:
        if each["learner"] == cell["learner"] and each["second"] == "mlp=cpu" and each[metric]:
            seeds = cell["aggregated"][metric]["num_seeds"]
            matched = table["equal_cpu"]
            what = (
                f"{name}: {_metric(metric)}, {_learner(cell)}; {matched['width']:,} random ReLU units,"
                f" {matched['ratio']:.2f} times the KAN's CPU time"
            )
            kcm, over = percent(cell["aggregated"][metric]["mean"]), {"ReLU": _paired(each[metric], seeds)}
            yield Figure(claim, what, name, kcm, over, str(seeds), tuned(name, cell["learner"]))


def forgotten(tables: Results) -> Iterator[Figure]:
    """Points forgotten, fewer being better, in the rows of asymmetric cross-entropy and of AdamW."""
    for name in ("clinc-ace", "clinc"):
        for cell in tables.get(name, {}).get("cells", ()):
            if cell["network"] == "kan" and cell["learner"] == "replay" and cell["memory_per_class"] == 2:
                found = cell["aggregated"]["forgetting_first"]
                over = over_controls(tables[name], cell, "forgetting_first")
                what = f"{name}: points forgotten (fewer is better), {_learner(cell)}"
                seeds, chosen = str(found["num_seeds"]), tuned(name, "replay")
                yield Figure("less forgetting", what, name, percent(found["mean"]), over, seeds, chosen)


def fashion() -> Iterator[Figure]:
    """Few-shot accuracy on the long tail of Fashion-MNIST."""
    if found := read("modalities").get("rows", {}).get("fashion-long-tail"):
        few = found["cells"]["kan"]["few"]
        over = {"MCM": points(found["kan_minus_mlp"]["few"])}
        what = "Fashion-MNIST, imbalance 100: accuracy on classes of under 20 rows, replay"
        yield Figure(
            "a better tail", what, "fashion-long-tail", percent(few["mean"]), over, "10", "rate, on validate rows"
        )


def readable() -> Iterator[Figure]:
    """How much of a deployed gate a person has to read."""
    if tables := read("gates"):
        curves, parameters = (max(table[key] for table in tables.values()) for key in ("curves", "parameters"))
        what = "the gate signals whole: curves, each of one direction, and fitted numbers"
        yield Figure(
            "readable", what, "gates", f"{curves} curves, {parameters} numbers", tuned="nothing", reads="never"
        )


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


def _metric(metric: str) -> str:
    return {"average_accuracy": "final average accuracy", "tail": "accuracy on the tail third"}[metric]


def _learner(cell: Results) -> str:
    setting = cell.get("setting") or {}
    parts = [cell["learner"]]
    if cell["memory_per_class"] is not None:
        parts.append(f"{cell['memory_per_class']:g} rows a class")
    if (base := setting.get("network", {}).get("base", "none")) != "none":
        parts.append(f"on {base}")
    return ", ".join(parts)


def percent(share: float) -> str:
    """0.5273 as 52.7."""
    return f"{100 * share:.1f}"


def points(found: Results) -> str:
    """An interval in percentage points, whichever way its ends are stored."""
    low, high = found["interval"] if "interval" in found else (found["low"], found["high"])
    return f"{100 * found['estimate']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def read(name: str) -> dict[str, Any]:
    """A committed file of results; empty where there is none."""
    file = RESULTS / f"{name}.json"
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return content


def show(rows: list[Figure]) -> None:
    """The table for a person."""
    table = Table(title="KCM, and KCM less its controls, in % and percentage points", show_lines=True)
    for heading in ("claim", "figure", "KCM", *(f"- {name}" for name in CONTROLS), "seeds", "tuned", "test read"):
        table.add_column(heading)
    claim = ""
    for row in rows:
        over = (row.over.get(name, "") for name in CONTROLS)
        table.add_row(
            "" if row.claim == claim else row.claim, row.what, row.kcm, *over, row.seeds, row.tuned, row.reads
        )
        claim = row.claim
    Console(width=190).print(table)


def markdown(rows: list[Figure]) -> str:
    """The table as it stands in the docs."""
    lines = ["| claim | figure | KCM | − MCM | − linear | − ReLU | seeds |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        over = " | ".join(row.over.get(name, "") for name in CONTROLS)
        lines.append(f"| {row.claim} | {row.what} | {row.kcm} | {over} | {row.seeds} |")
    return "\n".join(lines).replace("+-", "-").replace(" -", " −").replace("(-", "(−")


def main() -> None:
    """Measure again what is asked for, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="append", choices=RUNS, metavar="NAME", help=f"any of {', '.join(RUNS)}")
    parser.add_argument("--markdown", action="store_true", help="print it as the docs have it")
    arguments, rest = parser.parse_known_args()
    for name in arguments.run or ():
        script, *words = RUNS[name]
        command = [sys.executable, str(HERE / script), *words, *(word for word in rest if word != "--")]
        if code := subprocess.run(command, check=False).returncode:
            sys.exit(f"{script} ended with {code}; the committed results stand")
    rows = list(figures())
    if arguments.markdown:
        print(markdown(rows))
    else:
        show(rows)


if __name__ == "__main__":
    main()
