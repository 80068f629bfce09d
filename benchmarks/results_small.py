"""Heads and rows of the tables of benchmarks/kan_local.py, faithfulness.py and distillation.py, for results_page.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from verdict import Figure, percent, points, read

from kcm.metrics.intervals import resampled_mean

Table = tuple[list[str], list[list[str]]]
# WiseKAN's mean R2 of regressions on Feynman formulas one after the other: KAN, MLP.
PUBLISHED = {"finetune": (".694", ".801"), "ewc": (".996", ".914"), "si": (".999", ".964")}
FORMULAS = ("Feynman, 2", "Feynman, 3", "Feynman, 4")
GAPS = {
    "finetune": "`finetune`",
    "ewc": "EWC",
    "si": "SI",
    "closed form": "closed form: mixtures − ReLU",
    "closed form, curves": "closed form: inputs − ReLU",
    "closed form, readable": "closed form: inputs − mixtures",
}


def few_inputs() -> Table:
    """KAN minus MLP by stream and learner."""
    found, kinds = streams(), ["peaks", "Feynman"]

    def place(name: str) -> tuple[int, int]:
        kind = name.split(",")[0]
        return kinds.index(kind) if kind in kinds else len(kinds), found[name]["inputs"]

    rows = []
    for name in sorted(found, key=place):
        gaps = [points(found[name]["gaps"][key]) for key in GAPS]
        rows.append([f"{name.split(',')[0]}, {found[name]['inputs']}", *gaps])
    return ["stream, inputs", *GAPS.values()], rows


def published() -> Table:
    """WiseKAN's figures, and ours over the three streams of formulas."""
    heads = ["learner", "WiseKAN, R2: KAN", "MLP", "ours, right: KAN", "MLP", "linear", "KAN − MLP", "KAN − linear"]
    rows = []
    for learner, theirs in PUBLISHED.items():
        right = {kind: over_formulas(learner, kind) for kind in ("kan", "mlp", "linear")}
        gaps = [paired(right["kan"], right[control]) for control in ("mlp", "linear")]
        rows.append([GAPS[learner], *theirs, *(percent(part.mean()) for part in right.values()), *gaps])
    return heads, rows


def streams() -> dict[str, Any]:
    """The figures of every measured stream."""
    return {name: own for name, own in read("kan_local").items() if name != "machine"}


def over_formulas(learner: str, kind: str) -> NDArray[np.float64]:
    """Accuracy by seed [S], the mean over the streams of formulas."""
    found = streams()
    return np.mean([found[name]["right"][learner][kind] for name in FORMULAS], axis=0)


def paired(one: NDArray[np.float64], other: NDArray[np.float64]) -> str:
    """A paired difference over seeds that share no rows."""
    gap = resampled_mean(one - other, 0.0)
    assert gap is not None
    return points(vars(gap))


def faithful() -> Table:
    """Insertion less deletion by parts, model and order, and the model's own order less this one."""
    rows = []
    for parts, figures in read("faithfulness").items():
        for model in ("KCM", "logistic regression"):
            for order, mean in figures.get(model, {}).get("means", {}).items():
                gap = figures[model]["own order less"].get(order)
                rows.append([f"{parts}, {model}", order, percent(mean["estimate"]), points(gap) if gap else "own"])
    return ["parts, model", "order", "insertion − deletion", "the model's own order less this one"], rows


def distilled() -> Table:
    """Accuracy by line, and its difference from labels alone."""
    rows = []
    found = {name: own for name, own in read("distillation").items() if name != "machine"}
    for how in ("closed form", "steps"):
        for line in next(iter(found.values()))["right"][how]:
            row = [f"{how}: {line}"]
            for own in found.values():
                gap = own["gaps"][how].get(f"{line} - labels")
                row += [percent(float(np.mean(own["right"][how][line]))), points(gap) if gap else ""]
            rows.append(row)
    return ["learner: rows and terms", *(head for name in found for head in (name, "− labels alone"))], rows


def teachings() -> Table:
    """The differences that decide which parts of the distillation stay."""
    found = {name: own for name, own in read("distillation").items() if name != "machine"}
    pairs = [
        (how, pair)
        for how, gaps in next(iter(found.values()))["gaps"].items()
        for pair in gaps
        if not pair.endswith(" - labels")
    ]
    rows = [
        [f"{how}: {pair.replace(' - ', ' − ')}", *(points(own["gaps"][how][pair]) for own in found.values())]
        for how, pair in pairs
    ]
    return ["difference", *found], rows


def claims() -> Iterator[Figure]:
    """Rows of the paper's claims: less forgetting with few inputs, and explanations that decide."""
    for learner in PUBLISHED:
        right = {kind: over_formulas(learner, kind) for kind in ("kan", "mlp", "linear")}
        over = {name: paired(right["kan"], right[kind]) for name, kind in (("MCM", "mlp"), ("linear", "linear"))}
        what = f"Feynman formulas of 2 to 4 inputs, task known: final accuracy, `{learner}`"
        yield Figure("less forgetting", what, percent(right["kan"].mean()), over, "10")
    for parts, unit in (("words", "reviews, words"), ("pixels", "digits, pixels")):
        figures: Mapping[str, Any] = read("faithfulness")[parts]
        own = figures["KCM"]["means"]["kcm explain"]["estimate"]
        over = {"linear": points(figures["KCM - logistic regression, own orders"])}
        what = f"{unit}: insertion less deletion by `kcm explain`"
        yield Figure("readable", what, percent(own), over, f"{figures['rows']} rows")
