"""Tables of the results of `kcm route`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Group
from rich.text import Text

from jobs.views.table import line, percent, plain_table
from kcm.report.reading import routed
from kcm.report.words import headline, promise
from kcm.routing.routers.inputs import Progress
from pipelines.progress import Bar, Reporter

Numbers = Mapping[str, Any]

_NAMES = {"hashed_words": "hashed-word ridge"}
_COLUMNS = {"apgr": "APGR", "cpt_50": "CPT\n50%", "cpt_80": "CPT\n80%", "auroc": "AUROC"}


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """A bar of what is counted at present."""
    reporter, bars = Reporter(), dict[str, Bar]()
    with ExitStack() as shown:

        def show(what: str, done: int, total: int) -> None:
            if what not in bars:
                shown.close()
                bars[what] = shown.enter_context(reporter.bar(what, what.split()[0]))
            bars[what].update(done, total)

        yield show


def evaluation_view(result: Numbers) -> Group:
    """All routers, and the differences of the one that is deployed to each."""
    rounds = f"{result['num_repeats']} x {result['num_folds']} folds"
    table = plain_table(f"Routers on {result['num_rows']:,} rows, means over {rounds}, with 95% intervals")
    for heading in ("router", *_COLUMNS.values(), "call\nrate %", "loss\npoints", "deferral -\nthis, APGR"):
        table.add_column(heading, justify="left" if heading == "router" else "right", no_wrap=True)
    for name, figures in result["methods"].items():
        difference = result["differences"].get(name, {}).get("apgr")
        table.add_row(
            _NAMES.get(name, name),
            _figure(figures, "apgr"),
            *("–" if figures[m] is None else f"{figures[m]:.3f}" for m in ("cpt_50", "cpt_80", "auroc")),
            percent(figures["call_rate"]),
            percent(figures["loss"], ".2f"),
            "–"
            if difference is None
            else f"{difference['estimate']:+.3f}\n[dim]{_ends(difference['interval'], '+.3f')}[/dim]",
        )
    small, large, oracle = result["small_accuracy"], result["large_accuracy"], result["oracle"]
    facts = (
        f"small {percent(small)}%, large {percent(large)}%, oracle {percent(oracle['accuracy'])}%"
        f" at a call rate of {percent(oracle['call_rate'])}%"
    )
    return Group(table, line("accuracy", facts), line("verdict", result["verdict"]), *_notes(result))


def certificate_view(result: Numbers) -> Group:
    """The deployed decision, its certificate, and its metrics on test."""
    lines = [
        line("result", headline(routed(result, {}))),
        line("advice", result["recommendation"]),
        line("decision", _decision(result)),
        line("call rate", f"{percent(result['call_rate'])}% of {result['num_rows']:,} certify rows"),
        line("promise", promise(result)),
        line("valid", f"{'yes' if result['valid'] else 'no'}: {result['reason']}"),
    ]
    for task, own in result["tasks"].items():
        lines.append(line(f"task {task}", f"{_decision(own)}, call rate {percent(own['call_rate'])}%: {own['reason']}"))
    if test := result["test"]:
        difference = test["difference"]
        ends = _ends([difference["low"] * 100, difference["high"] * 100], "+.1f")
        shown = (
            f"{percent(difference['estimate'], '+.1f')} points ({ends}) at a call rate of {percent(test['call_rate'])}%"
        )
        lines.append(line(result["measured_on"], f"{shown}, {test['num_rows']:,} rows"))
    return Group(*lines, *_notes(result))


def _decision(result: Numbers) -> str:
    if result["decision"] == "threshold":
        return f"keep what scores above {result['threshold']:.6g}"
    return str(result["decision"]).replace("_", " ")


def _figure(figures: Numbers, measure: str) -> str:
    if figures[measure] is None:
        return "–"
    interval = figures["intervals"][measure]
    return f"{figures[measure]:.3f}" + (f"\n[dim]{_ends(interval, '.3f')}[/dim]" if interval else "")


def _ends(interval: list[float], form: str) -> str:
    return f"{interval[0]:{form}} to {interval[1]:{form}}"


def _notes(result: Numbers) -> list[Text]:
    return [line("note", note) for note in result["notes"]]
