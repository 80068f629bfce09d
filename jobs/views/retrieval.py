"""The output of the retrieval benchmark: R@K by way and model, the cascade and its certificate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from jobs.views.table import NETWORKS, percent, plain_table

Numbers = Mapping[str, Any]


def retrieval_view(result: Numbers) -> Group:
    """A table of recalls, then a line for each collaborator and for each comparison."""
    return Group(_recalls(result["collaborators"]), *_lines(result))


def _recalls(collaborators: Numbers) -> Table:
    table = plain_table("R@K on test queries in %: a right item is among the first K")
    table.add_column("queries", no_wrap=True)
    table.add_column("ranked by", no_wrap=True)
    ways = next(iter(collaborators.values()))["deployed"]["recall"]
    for k in next(iter(ways.values()))["small"]:
        table.add_column(f"R@{k}", justify="right")
    for way in ways:
        large = next(iter(collaborators.values()))["deployed"]["recall"][way]["large"]
        table.add_row(way, "large alone", *map(percent, large.values()))
        for name, found in collaborators.items():
            for model in ("small", "cascade"):
                recall = found["deployed"]["recall"][way][model]
                table.add_row("", f"{NETWORKS[name]} {model}", *map(percent, recall.values()))
    return table


def _lines(result: Numbers) -> Iterator[Text]:
    for name, found in result["collaborators"].items():
        deployed, certificate, within = found["deployed"], found["certificate"], found["within_share"]
        yield Text(
            f"{NETWORKS[name]}: {percent(deployed['escalated'])}% escalated, {percent(deployed['pair_share'])}% of the "
            f"pairs scored, R@1 {_interval(deployed['difference'])} points against large-only; "
            f"certificate: {certificate['decision']}, bound {percent(certificate['bound'])} points, "
            f"{certificate['reason']}"
        )
        yield Text(
            f"{NETWORKS[name]} within {percent(within['max_share'])}% of the pairs: {percent(within['pair_share'])}% "
            f"scored, R@1 {_interval(within['difference'])} points against large-only"
        )
    for pair, models in result["differences"].items():
        yield Text(f"{pair.upper()}: R@1 of the cascades {_interval(models['cascade'])} points")


def _interval(difference: Numbers) -> str:
    ends = " to ".join(f"{100 * difference[end]:+.1f}" for end in ("low", "high"))
    return f"{100 * difference['estimate']:+.1f} ({ends})"
