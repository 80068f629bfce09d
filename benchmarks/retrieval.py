"""Captions searched by pictures and pictures by captions: R@1, R@5 and R@10 of small, large and cascade.

    python benchmarks/retrieval.py CONFIG [--set KEY.PATH=VALUE] [--top-k K] [--json FILE]

CONFIG is a run's YAML file over pairs: see docs/vision_language.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from galleries.search import RetrievalConfig
from galleries.stage import retrieval
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from jobs.views.table import percent, plain_table
from kcm.config import load_config, parse_config
from kcm.report.reading import NAMES
from pipelines.config import RunConfig

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
                table.add_row("", f"{NAMES[name]} {model}", *map(percent, recall.values()))
    return table


def _lines(result: Numbers) -> Iterator[Text]:
    for name, found in result["collaborators"].items():
        deployed, certificate, within = found["deployed"], found["certificate"], found["within_share"]
        yield Text(
            f"{NAMES[name]}: {percent(deployed['escalated'])}% escalated, {percent(deployed['pair_share'])}% of the "
            f"pairs scored, R@1 {_interval(deployed['difference'])} points against large-only; "
            f"certificate: {certificate['decision']}, bound {percent(certificate['bound'])} points, "
            f"{certificate['reason']}"
        )
        yield Text(
            f"{NAMES[name]} within {percent(within['max_share'])}% of the pairs: {percent(within['pair_share'])}% "
            f"scored, R@1 {_interval(within['difference'])} points against large-only"
        )
    for pair, models in result["differences"].items():
        yield Text(f"{pair.upper()}: R@1 of the cascades {_interval(models['cascade'])} points")


def _interval(difference: Numbers) -> str:
    ends = " to ".join(f"{100 * difference[end]:+.1f}" for end in ("low", "high"))
    return f"{100 * difference['estimate']:+.1f} ({ends})"


def main() -> None:
    """Run what is missing, measure, print, and write the figures if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument(
        "--set", action="append", metavar="KEY.PATH=VALUE", help="override a value of CONFIG; repeatable"
    )
    parser.add_argument("--top-k", action="append", type=int, help="items that the large model ranks anew; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    settings = parse_config(RetrievalConfig, {"top_k": arguments.top_k} if arguments.top_k else {})
    result = retrieval(load_config(RunConfig, arguments.config, arguments.set or ()), settings)
    Console(width=130).print(retrieval_view(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2, default=str) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
