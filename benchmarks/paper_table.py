"""The paper's claims in one table, for results_page.py: its figure, ours with its interval, a control, the command.

The paper's figures are from notes on its full text, which a machine wrote; Data Shunt+'s are from its abstract.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.script import read
from benchmarks.verdict import over_splits, percent, points, three

HEADS = ["claim", "the paper", "ours", "control", "command"]
ALONE = "soft hints, less sure half"
COIN = "soft hints instead of a coin's, less sure half"
Row = list[str]


def rows() -> Iterator[Row]:
    """A row for each claim."""
    yield from (above(), calls(), over_mcm(), vision_language(), long_tail(), hints(), forgetting(), readable())


def above() -> Row:
    """A cascade that is more accurate than its large model."""
    cell = read("above_large")["banking77"]["cells"][-1]
    large, gain, ahead = cell["large"]["right"][0], cell["accuracy"]["gain"], cell["over_sceptic"]
    return [
        "above the large model",
        "Amazon reviews: ChatGPT 88.8 → 91.0",
        f"BANKING77, {cell['train_rows']:,} labels, no hints: GPT-4 {percent(large)}, {_gap(gain)}",
        f"over a cascade by logistic regression {_gap(ahead)}",
        "`above_large.py`",
    ]


def calls() -> Row:
    """Fewer calls at little loss."""
    sides = read("routing")["splits"]["sides"]
    mean, low, high = map(percent, sides["kcm"]["saved_interval"])
    return [
        "fewer calls",
        "Amazon sentiment, Data Shunt+: 94.4 → 95.6 at 31% of the cost",
        f"reviews: {mean}% of the calls saved ({low} to {high}), {percent(sides['kcm']['lost'])} points lost",
        f"over logistic regression {points(over_splits(sides['linear'], 'saved'))}",
        "`routing.py`",
    ]


def over_mcm() -> Row:
    """KANs over MLPs."""
    gap = points(over_splits(read("routing")["splits"]["sides"]["mcm"], "area"))
    ours = f"reviews, area under the deferral curve: {gap}"
    return ["KCM over MCM", "+0.6 to +1.1 points of accuracy", ours, "MCM is the control", "`routing.py`"]


def vision_language() -> Row:
    """Pictures for captions and captions for pictures."""
    sides = read("modalities")["rows"]["retrieval"]["over_seeds"]
    gaps = (sides[name]["difference"] for name in ("kcm", "mcm"))
    kcm, mcm = (_gap([gap["mean"], *gap["interval"]]) for gap in gaps)
    return [
        "vision and language",
        "MSCOCO, R@1 of captions: CLIP 73.2 → 75.4",
        f"aligned towers, within half of the pairs: {kcm} over the large model. CLIP's weights need a hub",
        f"MCM {mcm}",
        "`modalities.py retrieval`; CLIP: `examples/paper/vision_language.py coco`",
    ]


def long_tail() -> Row:
    """Small model and cascade on all rows of the long-tailed table."""
    ours, control = "CIFAR-100 and CLIP need a hub", "none"
    if found := read("modalities")["rows"].get("fashion-tail"):
        kcm, linear = found["sides"]["kcm"], found["sides"]["linear"]
        cascade, called = percent(kcm["large"] - kcm["lost"]), percent(1 - kcm["saved"])
        ours = f"Fashion-MNIST: {percent(kcm['small'])} → {cascade} at {called}% of the calls. {ours}"
        control = f"calls saved over logistic regression {points(over_splits(linear, 'saved'))}"
    command = "`modalities.py fashion-tail`; CIFAR: `examples/paper/vision_language.py cifar100`"
    return ["a better tail", "CIFAR-100-LT: ResNet-32 46.8 → 52.3", ours, control, command]


def hints() -> Row:
    """Hints that keep the large model from hallucinating."""
    gain, coin = (points(read("hints")["KCM"]["differences"][name]["pooled"]) for name in (ALONE, COIN))
    ours = f"Gemma 3 270M, three tables: {gain}. A larger model with a stated licence is missing"
    command = "`examples/paper/hints/hints.py replay`"
    return ["fewer hallucinations", "part of 88.8 → 91.0", ours, f"over a coin's hints {coin}", command]


def forgetting() -> Row:
    """Classes learned task by task."""
    learners = read("increments")["streams"]["clinc"]["learners"]
    kcm, klda = (_gap([end / 100 for end in learners[name]["difference"]]) for name in ("kcm (spline)", "klda"))
    ours = f"CLINC150 in 10 tasks: {learners['kcm (spline)']['right']:.1f}, {kcm} over joint training"
    return ["less forgetting", "no figure known", ours, f"KLDA {klda}", "`increments.py`"]


def readable() -> Row:
    """Explanations that name what decides."""
    words = read("faithfulness")["words"]
    ours = f"words, insertion less deletion: {percent(words['KCM']['means']['kcm explain']['estimate'])}"
    control = f"over logistic regression {points(words['KCM - logistic regression, own orders'])}"
    return ["readable", "no figure known", ours, control, "`faithfulness.py`"]


def _gap(ends: Sequence[float]) -> str:
    return points(three(ends))
