"""The page of results, losses included: `python benchmarks/results_page.py > docs/results.md`.

Every figure is read from a file in benchmarks/results, but for the demo's, which are taken from the table of
docs/demo.md. Nothing is measured here: a figure has one source, and this page shows it beside the others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any

import pandas as pd
from verdict import CONTROLS, Figure, demo_rows, figures, percent, points, read

HEAD = """\
# Results, losses included

Figures in %, differences in percentage points, intervals of 95%. The page named beside a figure says how it was
measured, on what machine, and what was seen before. `python benchmarks/results_page.py` prints this page from the
files in [benchmarks/results](../benchmarks/results) and the table of [the demo](demo.md).
"""
ABOVE = """\
`python benchmarks/above_large.py --data FOLDER`: recorded answers of a large model that was not trained on the task,
GPT-4's on BANKING77. Gold labels train, 1,000 more certify, the rest test. {splits} splits of rows, by `kcm run` on
MiniLM's features ({cpu}, one core, about {cpu_s:.0f} CPU seconds a line and split).

"Not worse" is the cheapest cascade, "most accurate" the one of `tune.goal: accuracy`; both are certified at epsilon 0.
Where nothing is certified, the large model answers everything, and the split counts with that. Beside them logistic
regression on the same features, with the threshold that is most accurate on its train rows by five folds, and no
certificate. Each cascade has its accuracy and, in brackets, its calls.
"""
FIRST_TABLE = """\
`python benchmarks/first_table.py --clinc data_full.json --banking FOLDER`, {seeds} draws a line, all at its defaults,
against `LogisticRegression(C=10)` on the same features and rows with an exact binomial threshold. Both promise at most
2 points lost. CPU seconds are those of one core ({cpu}) beside other work, without the encoder's.

Ours had quadratic features where the default now has learned curves, which were not measured here.

The large model learned from up to 8,000 other rows: a linear head (of reviews on mpnet, of emoji on larger pictures),
and of tables of numbers and pixels a support vector machine. Questions of CLINC150 and BANKING77 and reviews of films
have MiniLM's features. How a certificate tests its thresholds was chosen on further draws, when these had been seen
with one test for all thresholds: over all but Fashion-MNIST that was worth .8 ± .3 points.
"""
INCREMENTS = """
Classes that come task by task, learned by quadratic features and never seen again, against one
`LogisticRegression(C=10)` on the rows of all tasks at once, {seeds} draws:
"""
FEW_LABELS = """
Right on fresh questions of all 150 intents, where few of 3,250 train rows have a label. For the others stand answers of
the large model, as far as labelled rows left out say that they help:
"""
HINTS = """\
Does it help to tell the large model what the small model says? `python benchmarks/hints.py replay --data FOLDER`
replays {calls:,} stored answers of {model}, a base model of four bits a weight. llama.cpp gave them on one thread of
{cpu}.

- Every row was asked about once without a hint and once with each label as the hint.
- The prompt has two examples of each label. A hint reads "A smaller model suggests LABEL.", without its probability.
- KCM learned from 100 rows. Ten splits: half of the rows choose thresholds, the other half test.
- Three tables of six were chosen after looks at 40 rows: one look at each table, and two more at each chosen one, with
  other prompts. SmolLM2-135M-Instruct was looked at six times.
- `hard` restricts the answer to the labels that the small side does not answer reliably; the prompt stays the same.

Right in %, with KCM as the small side. `half` escalates the less sure half of the rows, `best` what is most accurate on
the validate half:
"""
HINTS_EVERY_ROW = """
With a hint on every row: right answers; shares of right answers that the hint spoils and of wrong answers that it
corrects, by whether the hint is right; answers that would be no label if nothing constrained them:
"""
HINTS_DECIDED = "soft hints, less sure half"  # the difference named in benchmarks/hints.py before any answer was read
Judged = tuple[Figure, str, str]  # a figure of KCM, the control, the verdict
_INTERVAL = re.compile(r"([+-][\d.]+) to ([+-][\d.]+)")


def page() -> str:
    """The Markdown of the page."""
    rows = list(_judged())
    parts = [
        HEAD,
        *_section("In short", _summary(rows)),
        *_section("A cascade above its large model", _above()),
        *_section("A first table, against thirty lines of scikit-learn", _first_table()),
        *_section("What the cascade saves", _deployed()),
        *_section("Learned curves against fixed units", _curves()),
        *_section("KCM against its controls", _controls(rows)),
        *_section("Routing on logged answers", _routing()),
        *_section("The gate", _gate()),
        *_section("Hints to a language model", _hints()),
        *_section("Promises over time", _loop()),
        *_section("Speed", _speed()),
        *_section("What was not measured", _missing()),
    ]
    text = "\n".join(parts) + "\n"
    return re.sub(r"(?<![\w-])-(?=[\d.])", "−", text)


def _summary(rows: Sequence[Judged]) -> Iterator[str]:
    """The lines that a reader may stop after."""
    yield from _above_summary()
    cell = read("first_table")["cells"][-1]
    gap, error, right_points = *cell["saved_difference"], cell["right_difference"][0]
    comparison = f"thirty lines of scikit-learn; the small side {right_points:+.1f} points right"
    yield f"- First tables, {cell['draws']} draws: {gap:+.1f} ± {error:.1f} points of calls saved against {comparison}."
    deployed: dict[str, Sequence[str]] = {}
    for row in _deployed_rows():
        deployed.setdefault(row[0], row)
    for data, collaborator, *_, loss, savings in deployed.values():
        yield (
            f"- {data}, {collaborator}: {savings}% of the calls saved; cascade − large {loss}; certified at 2 points,"
            " one seed."
        )
    sides = []
    for name in CONTROLS:
        verdicts = Counter(verdict for _, control, verdict in rows if control == name)
        sides.append(f"{name} {verdicts['ahead']}, {verdicts['equal']}, {verdicts['behind']}")
    yield f"- Figures in which KCM is ahead, no difference is shown, or it is behind: beside {'; beside '.join(sides)}."
    beyond = sum(verdict_name == "confidence" for _, verdict_name, _ in _gate_differences())
    yield f"- The gate `signals` beats plain confidence on {beyond} of {len(read('gates'))} data sets, beyond noise."
    routing = read("routing")
    apgr = {name: routing["gsm8k"]["routers"][name]["apgr"] for name in ("deferral", "hashed_words")}
    yield f"- GSM8K routing: APGR {apgr['deferral']:.3f}, where a hashed-word ridge has {apgr['hashed_words']:.3f}."
    worlds = [row for row in read("certificates")["rows"] if "in no ledger" not in row["world"]]
    violation_rate = max(row["false"] / row["worlds"] for row in worlds)
    yield f"- Certificates at 10%: at most {percent(violation_rate)}% were false in simulated worlds."
    hinted = points(read("hints")["KCM"]["differences"][HINTS_DECIDED]["pooled"])
    yield f"- Hints to Gemma 3 270M, three tables: {hinted} points of the cascade's accuracy."
    served = read("serve")["proxies"]["haproxy"]["throughput"]["kept_vs_large"]
    yield f"- Served, a kept item takes {served:.2f} of the time that a large-only service takes."
    yield f"- The KAN layer: {_bars()}"


def _section(title: str, lines: Iterator[str]) -> Iterator[str]:
    yield f"## {title}\n"
    yield from lines
    yield ""


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _deployed_rows() -> Iterator[Sequence[str]]:
    """Data, collaborator, accuracy of small, large and cascade, cascade − large, calls saved: one run each."""
    for row in demo_rows():
        yield ["reviews in four domains, [the demo](demo.md)", *row]
    if emoji := read("modalities").get("rows", {}).get("emoji"):
        for name in ("kcm", "mcm"):
            deployment = emoji[name]["deployed"]
            low, high = deployment["difference_interval"]
            loss = points({"estimate": deployment["difference"], "low": low, "high": high})
            accuracies = (percent(deployment[f"{side}_accuracy"]) for side in ("small", "large", "cascade"))
            cells = [name.upper(), *accuracies, loss, percent(deployment["calls_saved"])]
            yield ["emoji by two artists, [pictures](modalities.md)", *cells]


def _deployed() -> Iterator[str]:
    yield from _table(["data", "", "small", "large", "cascade", "cascade − large", "calls saved"], _deployed_rows())
    yield ""
    yield "One seed each, certified at 2 points. On reviews quadratic features, then deployed as KCM, and MCM, random"
    yield "ReLU units, are solved in closed form; Logistic is logistic regression. Which saves more in a single run"
    yield "depends on the draw: ten seeds are in [the demo](demo.md)."


def _curves() -> Iterator[str]:
    """Right in %, and the curves less the best control, by cell."""
    heads = ["table, train rows", "curves", "squares", "ReLU", "Fourier"]
    rows = []
    for cell in read("kan_basis")["cells"]:
        accuracies = (f"{cell['right'][name]:.1f}" for name in ("splines", "squares", "relu", "fourier"))
        best = cell["best_control"]
        gaps = (cell.get(name) for name in (f"splines - {best}", f"splines, 640 - {best}", "splines - parabolas"))
        differences = ("{:+.2f} ({:+.2f} to {:+.2f})".format(*gap) if gap else "not measured" for gap in gaps)
        rows.append([f"{cell['table']}, {cell['rows']:,}", *accuracies, *differences])
    yield from _table([*heads, "curves − best", "640 mixtures − best", "curves − parabolas"], rows)
    yield ""
    yield "`python benchmarks/kan_basis.py --clinc data_full.json --banking FOLDER`, five draws a line: right in % on"
    yield "up to 4,000 test rows, paired 95% intervals, against the control that is best on average. All have as many"
    yield "coefficients, but 640 mixtures have 1.2 times as many. How this was chosen: [KCM](deciding.md#what-kcm-is)."
    yield ""
    yield "Parabolas are an ablation: mixtures of rows as the curves have them, four times as many, without curves."


def verdict_of(advantage: str, *, fewer_is_better: bool) -> str:
    """`ahead`, `behind` or `equal`, from an interval such as `+0.7 (+0.2 to +1.3)`; `one seed` without an interval."""
    if not (ends := _INTERVAL.search(advantage)):
        return "one seed"
    low, high = sorted(float(end) * (-1 if fewer_is_better else 1) for end in ends.groups())
    return "ahead" if low > 0 else "behind" if high < 0 else "equal"


def _judged() -> Iterator[Judged]:
    """Every figure of KCM against every control, with its verdict."""
    for row in figures():
        for control, advantage in row.over.items():
            yield row, control, verdict_of(advantage, fewer_is_better="fewer is better" in row.what)


def _above() -> Iterator[str]:
    """Accuracy and calls of every side, by table and number of gold labels."""
    results = read("above_large")
    cells = [cell for table in results.values() for cell in table["cells"]]
    first = results["banking77"]
    cpu_s = sum(cell["cpu_s"] for cell in cells) / len(cells)
    yield ABOVE.format(splits=first["splits"], cpu=first["machine"]["cpu"], cpu_s=cpu_s)
    heads = ["table and labels", "large model alone", "small side alone", "not worse", "most accurate"]
    heads += ["over the large model", "certified", "logistic regression", "most accurate − logistic regression"]
    rows = []
    for name, table in results.items():
        for cell in table["cells"]:
            alone = [percent(cell[side]["right"][0]) for side in ("large", "small")]
            compared_cells = [_right_and_calls(cell[side]) for side in ("calls", "accuracy", "sceptic accuracy")]
            gain, ahead = (points(_ends(ends)) for ends in (cell["accuracy"]["gain"], cell["over_sceptic"]))
            certified_counts = " and ".join(str(cell[goal]["certified"]) for goal in ("calls", "accuracy"))
            figures = [
                *alone,
                *compared_cells[:2],
                gain,
                f"{certified_counts} of {table['splits']}",
                compared_cells[2],
                ahead,
            ]
            rows.append([f"{name}, {cell['train_rows']:,}", *figures])
    yield from _table(heads, rows)
    worse = sum(cell[goal]["worse"] for cell in cells for goal in ("calls", "accuracy"))
    yield f"\nCertified cascades less accurate than the large model on their test rows: {worse}. Intervals are"
    yield "corrected for rows that splits share. Settings were tried on two other splits of the same rows, and frozen."


def _ends(interval: Sequence[float]) -> dict[str, float]:
    return dict(zip(("estimate", "low", "high"), interval, strict=True))


def _right_and_calls(side: Mapping[str, Sequence[float]]) -> str:
    return f"{percent(side['right'][0])} ({percent(side['calls'][0])})"


def _above_summary() -> Iterator[str]:
    table = read("above_large")["banking77"]
    cell = table["cells"][-1]
    (right_points, *_), (calls, *_), (large, *_) = (
        cell["accuracy"]["right"],
        cell["accuracy"]["calls"],
        cell["large"]["right"],
    )
    figures = f"{percent(right_points)}% right at {percent(calls)}% of GPT-4's calls, where GPT-4 alone is right on"
    labels = f"{cell['train_rows']:,} gold labels to train and 1,000 to certify"
    yield f"- BANKING77, {labels}, {table['splits']} splits: {figures} {percent(large)}%."


def _first_table() -> Iterator[str]:
    results = read("first_table")
    yield FIRST_TABLE.format(seeds=results["seeds"], cpu=results["machine"]["cpu"])
    heads = ["table and rows given", "calls saved", "scikit-learn", "difference ± its error", "small side right"]
    heads += ["scikit-learn", "CPU seconds", "scikit-learn"]
    yield from _table(heads, [_first_table_row(cell) for cell in results["cells"]])
    our_violations, their_violations = (
        sum(draw[side]["broken"] for draw in results["draws"]) for side in ("ours", "theirs")
    )
    yield (
        f"\nBy up to 4,000 fresh rows {our_violations} of {len(results['draws'])} promises broke, and "
        f"{their_violations} of scikit-learn's."
    )
    yield INCREMENTS.format(seeds=results["seeds"])
    heads = ["tasks", "by increments", "all at once", "difference ± its error", "CPU seconds a task"]
    yield from _table(heads, _increments_rows(results["increments"]))
    yield FEW_LABELS
    means = pd.DataFrame(results["few_labels"]).groupby(["labelled", "taught"], sort=False).mean()
    columns = {"large": "large model", "ours": "ours", "labels_alone": "scikit-learn on the labels"}
    columns["labels_and_answers"] = "on labels and all answers alike"
    rows = [
        [f"{cell[0]:,}", *map(percent, means_of_columns[list(columns)])] for cell, means_of_columns in means.iterrows()
    ]
    yield from _table(["labels", *columns.values()], rows)


def _first_table_row(cell: Mapping[str, Any]) -> list[str]:
    our_cell, their_cell = cell["ours"], cell["theirs"]
    gap, error = cell["saved_difference"]
    pairs = [f"{side[key]:.1f}" for key in ("saved", "right") for side in (our_cell, their_cell)]
    seconds = [f"{our_cell['cpu_s']:.0f}", f"{their_cell['cpu_s']:.2f}"]
    return [cell["cell"], *pairs[:2], f"{gap or 0:+.1f} ± {error:.1f}", *pairs[2:], *seconds]


def _increments_rows(cells: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    frame = pd.DataFrame(cells).assign(gap=lambda table: table["right"] - table["joint"])
    for (table, tasks, labels), group in frame.groupby(["table", "tasks", "labels"], sort=False):
        mean, error = group.mean(numeric_only=True), group["gap"].sem()
        gap = f"{100 * mean['gap']:+.1f} ± {100 * error:.1f}"
        about = [percent(mean["right"]), percent(mean["joint"]), gap, f"{mean['cpu_s_per_task']:.1f}"]
        yield [f"{table}, {tasks} of {labels} intents", *about]


def _controls(rows: Sequence[Judged]) -> Iterator[str]:
    counts = Counter((control, verdict) for _, control, verdict in rows)
    heads = ["KCM beside", "ahead", "no difference shown", "behind", "one seed alone"]
    verdicts = ("ahead", "equal", "behind", "one seed")
    yield "Rows of [the paper's claims](verdict.md), by whether the interval of the difference leaves out zero:\n"
    yield from _table(heads, ((name, *(str(counts[name, verdict]) for verdict in verdicts)) for name in CONTROLS))
    for verdict, title in (("behind", "Where KCM is behind"), ("ahead", "Where KCM is ahead")):
        yield f"\n{title}:\n"
        matches = [(row, control) for row, control, row_verdict in rows if row_verdict == verdict]
        yield from _table(
            ["figure", "KCM", "less", "difference"],
            ((row.what, row.kcm, name, row.over[name]) for row, name in matches),
        )


def _routing() -> Iterator[str]:
    routing = read("routing")
    rows = []
    for name, description in (
        ("gsm8k", "GSM8K, before the small model answers"),
        ("gsm8k_cascade", "GSM8K, once it has answered"),
        ("mmlu", "MMLU, with the subject"),
    ):
        routers = routing[name]["routers"]
        gain = points(routing[name]["over_the_hashed_word_ridge"])
        compared = ("deferral", "hashed_words", "random", "oracle")
        rows.append([description, *(f"{routers[key]['apgr']:.3f}" for key in compared), gain])
    heads = ["APGR", "head", "hashed-word ridge", "random", "oracle", "gain, hundredths"]
    yield from _table(heads, rows)


def _gate() -> Iterator[str]:
    yield "Calls saved at half a point lost, by gate ([gates](deciding.md)):\n"
    tables = read("gates")
    names = list(dict.fromkeys(name for table in tables.values() for name in table["gates"]))
    rows = (
        [f"{data}, {table['num_seeds']} seeds", *(_saved(table["gates"].get(name)) for name in names)]
        for data, table in tables.items()
    )
    yield from _table(["data", *names], rows)
    yield "\nWhere `signals` saves more or less than another gate, beyond noise:\n"
    yield from _table(["data", "`signals` less", "calls saved"], list(_gate_differences()))


def _gate_differences() -> Iterator[tuple[str, str, str]]:
    """Differences of `signals` whose interval leaves out zero: data, the other gate, calls saved."""
    for data, table in read("gates").items():
        for pair, difference in table["differences"].items():
            savings = points(difference["calls_saved"])
            if pair.startswith("signals") and verdict_of(savings, fewer_is_better=False) in ("ahead", "behind"):
                yield data, pair.partition(" - ")[2], savings


def _saved(difference: Mapping[str, Any] | None) -> str:
    return percent(difference["calls_saved"]) if difference else ""


def _hints() -> Iterator[str]:
    results = read("hints")
    tables = results["KCM"]["tables"]
    yield HINTS.format(**results, cpu=results["machine"]["cpu"])
    columns = {"large": "large alone", "small": "small alone"}
    for policy, hint in product(("half", "best"), ("none", "soft", "hard")):
        columns[f"{policy}: {hint}"] = f"{policy}, {hint.replace('none', 'no')} hints"
    names = {
        name: f"{name}, {results['rows'][name]} rows, {num_labels} labels"
        for name, num_labels in results["labels"].items()
    }
    rows = [[names[name], *(_share(shares.get(key)) for key in columns)] for name, shares in tables.items()]
    yield from _table(["table", *columns.values()], rows)
    yield HINTS_EVERY_ROW
    columns = {"large": "no hint", "every row, soft": "KCM's hints", "every row, coin": "a coin's, as often right"}
    for change, kind in product(("spoiled", "corrected"), ("right", "wrong")):
        columns[f"soft: {change} by a {kind} hint"] = f"{change}, hint {kind}"
    columns |= {"off label": "off-label, no hint", "off label, hinted": "off-label, hinted"}
    rows = [[name, *(_share(shares.get(key)) for key in columns)] for name, shares in tables.items()]
    yield from _table(["table", *columns.values()], rows)
    yield "\nDifferences in accuracy, mean over the tables:\n"
    sides = ("KCM", "MCM")
    rows = [
        [name, *(points(results[side]["differences"][name]["pooled"]) for side in sides)]
        for name in results["KCM"]["differences"]
    ]
    yield from _table(["difference", *sides], rows)
    yield from _hints_read(results)


def _hints_read(results: Mapping[str, Any]) -> Iterator[str]:
    """What the tables of hints say."""
    tables, decided = results["KCM"]["tables"], results["KCM"]["differences"][HINTS_DECIDED]["pooled"]
    followed = ", ".join(f"{name} {percent(_followed(record))}%" for name, record in read("hints_answers").items())
    wrong_hint = percent(tables["sentiment"]["coin: corrected by a wrong hint"])
    left_out = fmean(shares["half: labels left out"] for shares in tables.values() if "half: labels left out" in shares)
    yield f"\n- The first line decides, by a rule written down before: {_ruling(decided)}"
    yield "- **A model of this size hardly reads the label in a hint.** If the hint is not what it answers without one,"
    yield f"  it answers with the hinted label in few cases: {followed}."
    yield f"- On sentiment a coin's wrong hints correct {wrong_hint}% of its wrong answers: any hint moves it away from"
    yield "  `negative`."
    yield f"- Under `half` hard hints leave out {left_out:.1f} labels on average: that does not test them."


def _followed(record: Mapping[str, Any]) -> float:
    """Share of hints that the large model repeats, among hints that differ from its answer without a hint."""
    pairs = [
        (hint, answer) for alone, *hinted in record["best"] for hint, answer in enumerate(hinted) if str(hint) != alone
    ]
    return fmean(str(hint) == answer for hint, answer in pairs)


def _ruling(decided: Mapping[str, float]) -> str:
    """What the interval of the gain by soft hints means for the prompt modes."""
    if decided["high"] < 0.01:
        return "its upper end is below 1 point, so prompt modes should leave the product."
    if decided["low"] <= 0:
        return "its interval includes 0, so prompt modes stay, undecided."
    return "its interval is above 0, so prompt modes stay."


def _share(value: float | None) -> str:
    return "" if value is None else percent(value)


def _loop() -> Iterator[str]:
    yield "`python benchmarks/loop.py PART`, simulated ([certificates](certificates.md), [the loop](loop.md)):\n"
    rows = [
        [f"`{part}`", row["figure"], row["must"], row["found"]]
        for part in ("alarm", "drift")
        for row in read(f"loop_{part}")["rows"]
    ]
    yield from _table(["part", "figure", "must", "found"], rows)


def _speed() -> Iterator[str]:
    rows = []
    served = read("serve")
    throughput = served["proxies"]["haproxy"]["throughput"]
    ratios = {
        "a kept item's median, of a large-only service's": throughput["kept_vs_large"],
        "cascade beside large-only, by CPU; the ideal is " + f"{throughput['ideal_ratio']:.2f}": throughput["ratio"],
        "p99 over median at 80% of the capacity": throughput["p99_over_median"],
    }
    rows += [
        ["[served](serving.md)", description, f"{value:.2f} x", _machine(served)]
        for description, value in ratios.items()
    ]
    yield from _table(["", "figure", "found", "machine"], rows)
    yield f"\nThe KAN layer: {_bars()}"


def _bars() -> str:
    bars_met = [row["met"] for row in read("kan")["headline"]]
    return f"{sum(bars_met)} of {len(bars_met)} bars of speed are met ([the KAN](deciding.md))."


def _machine(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores{', AMX' if machine['amx'] else ''}"


def _missing() -> Iterator[str]:
    yield "- Hints to a language model larger than Gemma 3 270M, or tuned to instructions. Of the latter the only"
    yield "  package found that states model, source and licence is SmolLM2-135M-Instruct: right on 30% of six topics,"
    yield "  40 rows."
    yield "- GPUs: nothing here ran on one."
    yield "- Real traffic: the loop's figures are of simulated or replayed streams."


if __name__ == "__main__":
    print(page(), end="")
