"""Tables of the results of `kcm route`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Group

from jobs.views.table import line
from kcm.report.formats import percent
from kcm.report.reading import routed
from kcm.report.summary import decision, headline, measured, promise
from kcm.routing.routers.inputs import Progress
from pipelines.progress import Bar, Reporter

Numbers = Mapping[str, Any]


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


def certificate_view(result: Numbers) -> Group:
    """What the deployed decision saves, what is guaranteed of it, and what to do next."""
    run = routed(result, {})
    lines = [
        line("result", headline(run)),
        line("measured", measured(run)),
        line("guarantee", f"{promise(result)}."),
        line("next", result["recommendation"]),
        line("decision", f"{decision(result)}: {result['reason']}"),
        line("call rate", f"{percent(result['call_rate'])} of {result['num_rows']:,} certify rows"),
    ]
    for task, own in result["tasks"].items():
        rate = percent(own["call_rate"])
        lines.append(line(f"task {task}", f"{decision(own)}, call rate {rate}: {own['reason']}"))
    return Group(*lines, *(line("note", note) for note in result["notes"]))
