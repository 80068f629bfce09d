"""The smaller tables of results_page.py. Most were measured by scripts that only earlier commits have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.script import read
from benchmarks.study.seeds import gap
from benchmarks.verdict import Figure, percent, points

Table = tuple[list[str], list[list[str]]]
# WiseKAN's mean R2 of regressions on Feynman formulas one after the other: KAN, MLP.
PUBLISHED = {"finetune": (".694", ".801"), "ewc": (".996", ".914"), "si": (".999", ".964")}
GAPS = {
    "finetune": "`finetune`",
    "ewc": "EWC",
    "closed form": "closed form: mixtures − ReLU",
    "closed form, curves": "closed form: inputs − ReLU",
}
TAUGHT = ("labels", "everywhere, 1", "everywhere, 3", "answers", "both", "labels, 1, judge 0", "both, 1, judge 0")


def few_inputs() -> Table:
    """KAN minus MLP by stream and learner."""
    found, kinds = measured("kan_local"), ["peaks", "Feynman"]

    def place(name: str) -> tuple[int, int]:
        kind = name.split(",")[0]
        return kinds.index(kind) if kind in kinds else len(kinds), found[name]["inputs"]

    rows = []
    for name in sorted(found, key=place):
        gaps = [points(found[name]["gaps"][key]) for key in GAPS]
        rows.append([f"{name.split(',')[0]}, {found[name]['inputs']}", *gaps])
    return ["stream, inputs", *GAPS.values()], rows


def published() -> Table:
    """WiseKAN's figures, and ours over the streams of formulas."""
    heads = ["learner", "WiseKAN, R2: KAN", "MLP", "ours, right: KAN", "MLP", "linear", "KAN − MLP", "KAN − linear"]
    rows = []
    for learner, theirs in PUBLISHED.items():
        right = {kind: over_formulas(learner, kind) for kind in ("kan", "mlp", "linear")}
        gaps = [points(gap(right["kan"], right[control])) for control in ("mlp", "linear")]
        rows.append([f"`{learner}`", *theirs, *(percent(part.mean()) for part in right.values()), *gaps])
    return heads, rows


def measured(name: str) -> dict[str, Any]:
    """The parts of a file of results, without the machine and the commit."""
    return {part: own for part, own in read(name).items() if part not in ("machine", "commit")}


def over_formulas(learner: str, kind: str) -> NDArray[np.float64]:
    """Accuracy by seed [S], the mean over the streams of formulas."""
    found = measured("kan_local")
    return np.mean([own["right"][learner][kind] for name, own in found.items() if name.startswith("Feynman")], axis=0)


def formula_inputs() -> str:
    """The numbers of inputs of the measured streams of formulas."""
    return ", ".join(str(own["inputs"]) for name, own in sorted(measured("kan_local").items()) if "Feynman" in name)


def faithful() -> Table:
    """Insertion less deletion by parts, model and order, and the model's own order less this one."""
    rows = []
    for parts, figures in measured("faithfulness").items():
        for model in ("KCM", "logistic regression"):
            for order, mean in figures[model]["means"].items():
                if order == "random":
                    continue
                over = figures[model]["own order less"].get(order)
                rows.append([f"{parts}, {model}", order, percent(mean["estimate"]), points(over) if over else "own"])
    return ["parts, model", "order", "insertion − deletion", "the model's own order less this one"], rows


def distilled() -> Table:
    """Accuracy by table and line of `TAUGHT`, and its difference from labels alone."""
    rows = []
    for name, own in measured("distillation").items():
        for line, right in own["right"].items():
            if line not in TAUGHT:
                continue
            over = own["gaps"].get(f"{line} - labels")
            rows.append([name, line, percent(float(np.mean(right))), points(over) if over else ""])
    return ["table, learner", "rows and terms", "right", "− labels alone"], rows


def few_columns() -> Table:
    """Accuracy by contestant: the mean over the formulas of as many columns, then each measured table."""
    found = read("few_columns")["tables"]
    contestants = [name for name in next(iter(found.values()))["right"] if name != "curves, unit"]
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, own in found.items():
        kind = "formulas" if name.startswith("I.") else name
        groups.setdefault(f"{kind}, {own['inputs']}", []).append(own["right"])
    rows = [
        [name, *(percent(float(np.mean([right[who] for right in own]))) for who in contestants)]
        for name, own in groups.items()
    ]
    return ["table, columns", *contestants], rows


def claims() -> Iterator[Figure]:
    """Rows of the paper's claims: less forgetting with few inputs, and explanations that decide."""
    for learner in PUBLISHED:
        right = {kind: over_formulas(learner, kind) for kind in ("kan", "mlp", "linear")}
        over = {name: points(gap(right["kan"], right[kind])) for name, kind in (("MCM", "mlp"), ("linear", "linear"))}
        what = f"Feynman formulas of {formula_inputs()} inputs, task known: final accuracy, `{learner}`"
        yield Figure("less forgetting", what, percent(right["kan"].mean()), over, "10")
    for parts, figures in measured("faithfulness").items():
        own = figures["KCM"]["means"]["kcm explain"]["estimate"]
        over = {"linear": points(figures["KCM - logistic regression, own orders"])}
        what = f"{parts}: insertion less deletion in the order of `kcm explain`"
        yield Figure("readable", what, percent(own), over, f"{figures['rows']} rows")
