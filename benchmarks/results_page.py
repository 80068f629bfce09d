"""The tables of docs/results.md, from the files in benchmarks/results.

    python benchmarks/results_page.py            # prints the page with its tables renewed
    python benchmarks/results_page.py --write    # writes them into the page

A table stands between the lines `<!-- NAME -->` and `<!-- end -->`; the prose around it is written by hand. Nothing is
measured here.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, product
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from benchmarks import paper_table
from benchmarks.results_small import claims, distilled, faithful, few_columns, few_inputs, published
from benchmarks.verdict import CONTROLS, TABLES, Figure, figures, markdown, percent, points, read
from kcm.report.reading import Who, called

PAGE = Path(__file__).parents[1] / "docs" / "results.md"

HINTS_DECIDED = "soft hints, less sure half"  # named in examples/paper/hints before any answer was read
SIDES = ("KCM", "MCM", "Logistic")  # of first tables
Judged = tuple[Figure, str, str]  # a figure of KCM, the control beside it, the verdict
_BLOCK = re.compile(r"(<!-- (?!end)([\w, ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_INTERVAL = re.compile(r"([+-][\d.]+) to ([+-][\d.]+)")


def page(text: str) -> str:
    """The page with every table renewed. KeyError for a block that nothing makes."""
    return _BLOCK.sub(lambda block: f"{block[1]}{_block(block[2])}{block[3]}", text)


def _block(name: str) -> str:
    lines = "\n".join(["", *BLOCKS[name](), "", ""])
    return re.sub(r"(?<![\w-])-(?=[\d.])", "−", lines)


def _summary() -> Iterator[str]:
    """The lines that a reader may stop after."""
    yield from _above_summary()
    found = read("first_table")["cells"][-1]
    gaps = ["{:+.1f} ± {:.1f}".format(*found[key]["kcm_minus"]) for key in ("linear", "mcm")]
    against = f"calls saved against tuned logistic regression, {gaps[1]} against MCM (random ReLU)"
    yield f"- First tables, {found['draws']} draws: {gaps[0]} points of {against}."
    demo = read("demo")["rows"][0]
    saved = f"{demo['calls_saved']}% of the calls saved, cascade − large {demo['difference']}"
    yield f"- The demo, {demo['collaborator']}, one seed, certified at 2 points: {saved}."
    demo = read("routing")["splits"]
    saved, lost = (percent(demo["sides"]["kcm"][key]) for key in ("saved", "lost"))
    gap = points(_ends(demo["sides"]["linear"]["kcm_minus"]["saved_at_0.01"]))
    figures = f"{saved}% at {lost} points lost; at one point lost {gap} against logistic regression"
    yield f"- The demo over {demo['splits']} splits: {figures}."
    beyond = sum(other == "confidence" for _, other, _ in _gate_differences())
    yield f"- The gate `signals` beats plain confidence on {beyond} of {len(read('gates'))} data sets, beyond noise."
    worlds = [row for row in read("certificates")["rows"] if "in no ledger" not in row["world"]]
    broken = max(row["false"] / row["worlds"] for row in worlds)
    yield f"- Certificates at 10%: at most {percent(broken)}% were false in simulated worlds."
    hinted = points(read("hints")["KCM"]["differences"][HINTS_DECIDED]["pooled"])
    yield f"- Hints to Gemma 3 270M, three tables: {hinted} points of the cascade's accuracy."
    yield f"- The KAN layer: {_bars()}"


def _by_hand() -> Iterator[str]:
    """Calls and differing answers, with a promise, without one, and with every row asked about."""
    found = read("by_hand")
    num_rows, allowed = found["rows"], found["allowed"]
    rows = []
    for side, name in (("kcm label", "`kcm label`"), ("by hand", "a threshold chosen by hand")):
        calls, differ = ([draw[key] for draw in found[side]] for key in ("calls", "differ"))
        over = sum(rows_over > allowed for rows_over in differ)
        rows.append([name, f"{fmean(calls):,.0f}", f"{fmean(differ):,.0f}", f"{over} of {len(differ)} draws"])
    rows.append(["everything to the LLM", f"{num_rows:,}", "0", "none"])
    yield from _table(["", "calls, mean", "labels that differ, mean", f"more than {allowed} differ"], rows)


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _demo() -> Iterator[str]:
    """The demo's table: overall with every column, by task with difference and calls saved."""
    rows = read("demo")["rows"]
    heads = ["collaborator", "small", "large", "cascade", "cascade − large", "calls saved", "cost saved"]
    keys = ("collaborator", "small", "large", "cascade", "difference", "calls_saved", "cost_saved")
    overall = [row for row in rows if row["task"] == "overall"]
    yield from _table(heads, [[row[key] for key in keys] for row in overall])
    yield "\nBy task, cascade − large; calls saved:\n"
    tasks = []
    for task, own in groupby(rows[len(overall) :], key=lambda row: row["task"]):
        tasks.append([task, *(f"{row['difference']}; {row['calls_saved']}" for row in own)])
    yield from _table(["task", *(row["collaborator"] for row in overall)], tasks)


def _over_splits(tables: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Every collaborator over splits; names begin with that of the table."""
    heads = ["collaborator", "small", "large", "calls saved", "cost saved", "points lost", "area"]
    rows = []
    for table, found in tables.items():
        for name, side in found["sides"].items():
            saved, lost = side["saved_interval"], side["lost_interval"]
            shares = [_percents(ends) for ends in (saved, [end - found["cost_ratio"] for end in saved])]
            figures = [percent(side["small"]), percent(side["large"]), *shares, _in_points(lost)]
            rows.append([table + _called(name, found), *figures, f"{100 * side['area']:.2f}"])
    yield from _table(heads, rows)


def _pictures() -> Iterator[str]:
    """Cascades on pictures over splits, then accuracy by the number of train rows of a class."""
    tables = {f"{TABLES[row]}, ": found for row, found in read("modalities")["rows"].items() if "splits" in found}
    yield from _over_splits(tables)
    if found := read("modalities")["rows"].get("fashion-tail"):
        yield "\nThe long tail by train rows of a class: many (over 100), medium (20 to 100), few:\n"
        sides = ("small", "large", "cascade")
        rows = [
            [f"{_called(name, found)}, {band}", *(percent(right[side]) for side in sides)]
            for name, bands in found["sizes"].items()
            for band, right in bands.items()
        ]
        yield from _table(["collaborator, classes", *sides], rows)


def _called(name: str, found: Mapping[str, Any]) -> str:
    """A collaborator over splits. In older results `quadratic` is KCM with that basis."""
    names: dict[str, Who] = {"kcm": "kcm", "quadratic": "kcm", "mcm": "mcm", "linear": "linear"}
    return called(names[name], found["sides"][name]["form"])


def _percents(ends: Sequence[float]) -> str:
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * end for end in ends))


def _in_points(ends: Sequence[float]) -> str:
    """A mean and its interval in points, with two digits."""
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * end for end in ends))


def _demo_crossed() -> Iterator[str]:
    """The demo over splits by learner, gate and certificate."""
    found = read("routing")["splits"]
    names = {"ours": "ours", "plain": "largest probability", "exact": "exact binomial"}
    names |= {name: _called(name, found) for name in found["sides"]}
    rows = []
    for crossing, side in found["crossed"].items():
        parts = [names[part] for part in crossing.split(", ")]
        figures = [percent(side["saved"]), f"{100 * side['lost']:.2f}", f"{side['over']} of {found['splits']}"]
        rows.append([*parts, *figures, points(_ends(side["saves_more"]))])
    heads = [
        "learner",
        "gate",
        "certificate",
        "calls saved",
        "points lost",
        "over 2 points",
        "saves more than the last",
    ]
    yield from _table(heads, rows)


def _learners() -> Iterator[str]:
    """Final average accuracy on CLINC150 by learner and network."""
    table = read("continual")["tables"]["clinc"]
    cells = {(cell["learner"], cell["memory_per_class"], cell["network"]): cell for cell in table["cells"]}
    gaps = {
        (gap["learner"], gap["memory_per_class"]): gap["average_accuracy"]
        for gap in table["differences"]
        if (gap["first"], gap["second"]) == ("kan", "mlp")
    }
    rows = []
    for learner, memory in dict.fromkeys((learner, memory) for learner, memory, _ in cells if learner):
        if memory == 0:
            continue
        own = [cells.get((learner, memory, network)) for network in ("kan", "mlp", "linear")]
        means = [percent(cell["aggregated"]["average_accuracy"]["mean"]) if cell else "" for cell in own]
        seeds = str(cells[learner, memory, "kan"]["aggregated"]["average_accuracy"]["num_seeds"])
        kept = "all rows" if learner == "joint" else "none" if memory is None else f"{memory:g}"
        rows.append([f"`{learner}`", kept, seeds, *means, points(gaps[learner, memory])])
    yield from _table(["learner", "memory per class", "seeds", "KAN", "MLP", "linear", "KAN − MLP, paired"], rows)


def _curves() -> Iterator[str]:
    """Right in %, and the curves less the best control, by cell."""
    heads = ["table, train rows", "curves", "squares", "ReLU", "Fourier", "KAC"]
    rows = []
    for cell in read("kan_basis")["cells"]:
        right = (f"{cell['right'][name]:.1f}" for name in ("splines", "squares", "relu", "fourier", "kac"))
        best = cell["best_control"]
        pairs = (f"splines - {best}", "splines - kac")
        gaps = (cell.get(pair) for pair in pairs)
        differences = ("{:+.2f} ({:+.2f} to {:+.2f})".format(*gap) if gap else "not measured" for gap in gaps)
        rows.append([f"{cell['table']}, {cell['rows']:,}", *right, *differences])
    yield from _table([*heads, "curves − best", "curves − KAC"], rows)


def verdict_of(over: str, *, fewer_is_better: bool) -> str:
    """`ahead`, `behind` or `equal`, by an interval such as `+0.7 (+0.2 to +1.3)`."""
    ends = _INTERVAL.search(over)
    assert ends is not None
    low, high = sorted(float(end) * (-1 if fewer_is_better else 1) for end in ends.groups())
    return "ahead" if low > 0 else "behind" if high < 0 else "equal"


def _judged() -> Iterator[Judged]:
    """Every figure of KCM beside every control, with its verdict."""
    for row in _figures():
        for control, over in row.over.items():
            yield row, control, verdict_of(over, fewer_is_better="fewer is better" in row.what)


def _above() -> Iterator[str]:
    """Accuracy and calls of every side, by table and number of gold labels."""
    found = read("above_large")
    cells = [cell for table in found.values() for cell in table["cells"]]
    heads = ["table and labels", "large model alone", "small side alone", "not worse", "most accurate"]
    heads += ["over the large model", "certified", "logistic regression", "most accurate − logistic regression"]
    rows = []
    for name, table in found.items():
        for cell in table["cells"]:
            alone = [percent(cell[side]["right"][0]) for side in ("large", "small")]
            beside = [_right_and_calls(cell[side]) for side in ("calls", "accuracy", "sceptic accuracy")]
            gain, ahead = (points(_ends(ends)) for ends in (cell["accuracy"]["gain"], cell["over_sceptic"]))
            certified = " and ".join(str(cell[goal]["certified"]) for goal in ("calls", "accuracy"))
            figures = [*alone, *beside[:2], gain, f"{certified} of {table['splits']}", beside[2], ahead]
            rows.append([f"{name}, {cell['train_rows']:,}", *figures])
    yield from _table(heads, rows)
    worse = sum(cell[goal]["worse"] for cell in cells for goal in ("calls", "accuracy"))
    cpu_s, cpu = sum(cell["cpu_s"] for cell in cells) / len(cells), found["banking77"]["machine"]["cpu"]
    yield f"\nCertified cascades less accurate than the large model on their test rows: {worse}."
    yield f"About {cpu_s:.0f} CPU seconds a line and split ({cpu}, one core)."


def _ends(interval: Sequence[float]) -> dict[str, float]:
    return dict(zip(("estimate", "low", "high"), interval, strict=True))


def _right_and_calls(side: Mapping[str, Sequence[float]]) -> str:
    return f"{percent(side['right'][0])} ({percent(side['calls'][0])})"


def _above_summary() -> Iterator[str]:
    table = read("above_large")["banking77"]
    cell = table["cells"][-1]
    (right, *_), (calls, *_), (large, *_) = cell["accuracy"]["right"], cell["accuracy"]["calls"], cell["large"]["right"]
    figures = f"{percent(right)}% right at {percent(calls)}% of GPT-4's calls, where GPT-4 alone is right on"
    labels = f"{cell['train_rows']:,} gold labels to train and 1,000 to certify"
    yield f"- BANKING77, {labels}, {table['splits']} splits: {figures} {percent(large)}%."


def _first_table() -> Iterator[str]:
    found = read("first_table")
    heads = ["table", *(f"calls saved, {name}" for name in SIDES), *(f"KCM − {name}" for name in SIDES[1:])]
    yield from _table(heads, [_first_table_row(cell) for cell in found["cells"] if "," not in cell["cell"]])
    broken = (sum(draw[key]["broken"] for draw in found["draws"]) for key in ("kcm", "mcm", "linear"))
    names = ", ".join(f"{count} of {name}" for count, name in zip(broken, SIDES, strict=True))
    draws = f"{found['seeds']} draws a cell, {len(found['draws'])} in all"
    yield f"\n{draws}, ± the standard error over draws, which share rows."
    yield f"On fresh rows these promises broke: {names}. {_machine(found)}."


def _increments() -> Iterator[str]:
    """Differences to the joint regression, then the figures of every learner, by stream."""
    found = read("increments")
    streams = {
        f"{name}, {stream['tasks']} tasks, {stream['classes']} classes, {stream['seeds']} seeds": stream["learners"]
        for name, stream in found["streams"].items()
    }
    learners = [name for name in next(iter(streams.values())) if name != "joint"]
    rows = [
        [name, f"{own['joint']['right']:.1f}", *(_ends_of(own[learner]["difference"]) for learner in learners)]
        for name, own in streams.items()
    ]
    yield from _table(["stream", "joint", *(f"`{learner}`" for learner in learners)], rows)
    yield "\nBackward transfer; CPU seconds a task:\n"
    keys = {"backward": "+.1f", "cpu_s": ".2f"}
    ours = [name for name in learners if name.startswith("kcm")]
    rows = [
        [name, *("; ".join(f"{own[learner][key]:{form}}" for key, form in keys.items()) for learner in ours)]
        for name, own in streams.items()
    ]
    yield from _table(["stream", *(f"`{learner}`" for learner in ours)], rows)
    yield f"\n{_machine(found)}."


def _ends_of(interval: Sequence[float]) -> str:
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*interval)


def _few_labels() -> Iterator[str]:
    means = pd.DataFrame(read("first_table")["few_labels"]).groupby(["labelled", "taught"], sort=False).mean()
    columns = {"large": "large model", "ours": "ours", "labels_alone": "scikit-learn on the labels"}
    columns["labels_and_answers"] = "on labels and all answers alike"
    rows = [[f"{cell[0]:,}", *map(percent, own[list(columns)])] for cell, own in means.iterrows()]
    yield from _table(["labels", *columns.values()], rows)


def _first_table_row(cell: Mapping[str, Any]) -> list[str]:
    saved = [f"{cell[key]['saved']:.1f}" for key in ("kcm", "mcm", "linear")]
    return [cell["cell"], *saved, *("{:+.1f} ± {:.1f}".format(*cell[key]["kcm_minus"]) for key in ("mcm", "linear"))]


def _controls() -> Iterator[str]:
    counts = Counter((control, verdict) for _, control, verdict in _judged())
    heads = ["control", "ahead", "no difference shown", "behind"]
    verdicts = ("ahead", "equal", "behind")
    yield from _table(heads, [[name, *(str(counts[name, verdict]) for verdict in verdicts)] for name in CONTROLS])


def _figures() -> list[Figure]:
    """All rows of the claims, claim by claim."""
    rows = [*figures(), *claims()]
    order = list(dict.fromkeys(row.claim for row in rows))
    return sorted(rows, key=lambda row: order.index(row.claim))


def _claims() -> Iterator[str]:
    yield markdown(_figures())


def _gate() -> Iterator[str]:
    tables = read("gates")
    names = list(dict.fromkeys(name for table in tables.values() for name in table["gates"]))
    rows = []
    for data, table in tables.items():
        saved = [_saved(table["gates"].get(name)) for name in names]
        rows.append([data, *saved, points(table["differences"]["signals - confidence"]["calls_saved"])])
    yield from _table(["data", *names, "signals − confidence"], rows)


def _gate_differences() -> Iterator[tuple[str, str, str]]:
    """Differences of `signals` whose interval leaves out zero: data, the other gate, calls saved."""
    for data, table in read("gates").items():
        for pair, found in table["differences"].items():
            saved = points(found["calls_saved"])
            if pair.startswith("signals") and verdict_of(saved, fewer_is_better=False) in ("ahead", "behind"):
                yield data, pair.partition(" - ")[2], saved


def _saved(found: Mapping[str, Any] | None) -> str:
    return percent(found["calls_saved"]) if found else ""


def _hints() -> Iterator[str]:
    found = read("hints")
    columns = {"large": "large alone", "small": "small alone"}
    for policy, hint in product(("half", "best"), ("none", "soft", "hard")):
        columns[f"{policy}: {hint}"] = f"{policy}, {hint.replace('none', 'no')} hints"
    names = {name: f"{name}, {found['rows'][name]} rows, {own} labels" for name, own in found["labels"].items()}
    tables = found["KCM"]["tables"]
    rows = [[names[name], *(_share(own.get(key)) for key in columns)] for name, own in tables.items()]
    yield from _table(["table", *columns.values()], rows)


def _hints_differences() -> Iterator[str]:
    found = read("hints")
    sides = ("KCM", "MCM")
    rows = [
        [name, *(points(found[side]["differences"][name]["pooled"]) for side in sides)]
        for name in found["KCM"]["differences"]
    ]
    yield from _table(["difference", *sides], rows)
    yield from _hints_read(found)


def _hints_read(found: Mapping[str, Any]) -> Iterator[str]:
    """What the tables of hints say."""
    tables, decided = found["KCM"]["tables"], found["KCM"]["differences"][HINTS_DECIDED]["pooled"]
    followed = ", ".join(f"{name} {percent(_followed(record))}%" for name, record in read("hints_answers").items())
    wrong = percent(tables["sentiment"]["coin: corrected by a wrong hint"])
    left_out = fmean(own["half: labels left out"] for own in tables.values() if "half: labels left out" in own)
    yield f"\n- The first line decides, by a rule written down before: {_ruling(decided)}"
    yield "- **A model of this size hardly reads the label in a hint.** If the hint is not what it answers without one,"
    yield f"  it answers with the hinted label in few cases: {followed}."
    yield f"- On sentiment a coin's wrong hints correct {wrong}% of its wrong answers: any hint moves it away from"
    yield "  `negative`."
    yield f"- Under `half` hard hints leave out {left_out:.1f} labels on average: that does not test them."


def _followed(record: Mapping[str, Any]) -> float:
    """Of the hints that differ from the answer without one, the share that the large model answers with."""
    pairs = [
        (hint, answer) for alone, *hinted in record["best"] for hint, answer in enumerate(hinted) if str(hint) != alone
    ]
    return fmean(str(hint) == answer for hint, answer in pairs)


def _ruling(decided: Mapping[str, float]) -> str:
    """What the interval of the gain by soft hints means."""
    if decided["high"] < 0.01:
        return "its upper end is below 1 point, so hints hardly help."
    if decided["low"] <= 0:
        return "its interval includes 0, so it is undecided whether hints help."
    return "its interval is above 0, so hints help."


def _share(value: float | None) -> str:
    return "" if value is None else percent(value)


def _loop() -> Iterator[str]:
    rows = [[row["figure"], row["must"], row["found"]] for row in read("loop_alarm")["rows"]]
    yield from _table(["figure", "must", "found"], rows)


def _speed() -> Iterator[str]:
    served = read("serve")
    found = served["proxies"]["haproxy"]["throughput"]
    ideal = f"{found['ideal_ratio']:.2f}"
    ratios = {
        "a kept item's median latency, of a large-only service's": found["kept_vs_large"],
        f"the cascade's throughput, of a large-only service's by CPU; the ideal is {ideal}": found["ratio"],
        "p99 over median latency at 80% of the capacity": found["p99_over_median"],
    }
    yield from _table(["figure", "found"], [[what, f"{value:.2f} x"] for what, value in ratios.items()])
    yield f"\n{_machine(served)}."


def _bars() -> str:
    met = [row["met"] for row in read("kan")["headline"]]
    return f"{sum(met)} of {len(met)} bars of speed are met ([deciding.md](deciding.md))."


def _machine(result: Mapping[str, Any]) -> str:
    found = result["machine"]
    return f"{found['cpu']}, {found['cores']} cores{', AMX' if found['amx'] else ''}"


BLOCKS: dict[str, Callable[[], Iterator[str]]] = {
    "summary": _summary,
    "by hand": _by_hand,
    "above": _above,
    "first table": _first_table,
    "increments": _increments,
    "few labels": _few_labels,
    "demo": _demo,
    "demo, splits": lambda: _over_splits({"": read("routing")["splits"]}),
    "demo, crossed": _demo_crossed,
    "paper": lambda: _table(paper_table.HEADS, list(paper_table.rows())),
    "controls": _controls,
    "claims": _claims,
    "learners": _learners,
    "curves": _curves,
    "few inputs": lambda: _table(*few_inputs()),
    "few columns": lambda: _table(*few_columns()),
    "published": lambda: _table(*published()),
    "faithful": lambda: _table(*faithful()),
    "distilled": lambda: _table(*distilled()),
    "gate": _gate,
    "hints": _hints,
    "hints, differences": _hints_differences,
    "loop": _loop,
    "pictures": _pictures,
    "speed": _speed,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the tables into docs/results.md")
    renewed = page(PAGE.read_text(encoding="utf-8"))
    if parser.parse_args().write:
        PAGE.write_text(renewed, encoding="utf-8")
    else:
        print(renewed, end="")
