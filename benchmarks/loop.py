"""The loop's proof, a row of its table per command.

    python benchmarks/loop.py alarm       # delay after a jump of regret, and false alarms
    python benchmarks/loop.py drift       # the same of inputs that move away
    python benchmarks/loop.py histories   # broken certificates over simulated histories of updates
    python benchmarks/loop.py labels      # labels that a person gives, beside those of uniform labelling

Each takes minutes at the most on one core, simulates its table, runs the production functions, and prints what must
hold beside what was found; `--json FILE` writes it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from machine import machine
from rich.console import Console
from rich.table import Table

Found = list[tuple[str, str, str, str]]  # rows: figure, must, aim, found


@dataclass(frozen=True)
class Row:
    """A row of the table: a figure, what it must be, what is aimed at, and what was found."""

    figure: str
    must: str
    aim: str
    found: str


def main() -> None:
    """Measure one part and print its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=sorted(_PARTS))
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    started = time.perf_counter()
    rows = [Row(*row) for row in _PARTS[options.part]()]
    seconds = time.perf_counter() - started
    table = Table("figure", "must", "aim", "found", title=f"benchmarks/loop.py {options.part}", title_justify="left")
    for row in rows:
        table.add_row(row.figure, row.must, row.aim, row.found)
    console = Console(width=140)
    console.print(table)
    console.print(f"{machine()['cpu']}, {seconds:.0f} s", highlight=False)
    if options.json:
        found = {"rows": [asdict(row) for row in rows], "machine": machine(), "seconds": seconds}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _alarm() -> Found:
    from loop_alarm import alarm_rows

    return alarm_rows()


def _drift() -> Found:
    from loop_alarm import drift_rows

    return drift_rows()


def _histories() -> Found:
    from loop_histories import history_rows

    return history_rows()


def _labels() -> Found:
    from loop_histories import label_rows

    return label_rows()


_PARTS: dict[str, Callable[[], Found]] = {
    "alarm": _alarm,
    "drift": _drift,
    "histories": _histories,
    "labels": _labels,
}

if __name__ == "__main__":
    main()
