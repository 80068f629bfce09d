"""The loop's proof, a row of its table per command.

    python benchmarks/loop.py alarm       # delay after a jump of regret, and false alarms
    python benchmarks/loop.py drift       # the same of inputs that move away
    python benchmarks/loop.py histories   # broken certificates over simulated histories of updates
    python benchmarks/loop.py growth      # CPU of training an added task, beside all tasks anew
    python benchmarks/loop.py labels      # labels that a person gives, beside those of uniform labelling

Each takes minutes at the most on one core, runs the production functions, and prints what must hold beside what was
found; `--json FILE` writes it.
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
    rows = _PARTS[options.part]()
    seconds = time.perf_counter() - started
    table = Table("figure", "must", "aim", "found", title=f"benchmarks/loop.py {options.part}", title_justify="left")
    for row in rows:
        table.add_row(row.figure, row.must, row.aim, row.found)
    console = Console(width=140)
    console.print(table)
    console.print(f"{machine()['cpu']}, {seconds:.0f} s on one core", highlight=False)
    if options.json:
        found = {"rows": [asdict(row) for row in rows], "machine": machine(), "seconds": seconds}
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _alarm() -> list[Row]:
    from loop_alarm import alarm_rows

    return [Row(*row) for row in alarm_rows()]


def _drift() -> list[Row]:
    from loop_alarm import drift_rows

    return [Row(*row) for row in drift_rows()]


def _histories() -> list[Row]:
    from loop_histories import history_rows

    return [Row(*row) for row in history_rows()]


def _growth() -> list[Row]:
    from loop_growth import growth_rows

    return [Row(*row) for row in growth_rows()]


def _labels() -> list[Row]:
    from loop_histories import label_rows

    return [Row(*row) for row in label_rows()]


_PARTS: dict[str, Callable[[], list[Row]]] = {
    "alarm": _alarm,
    "drift": _drift,
    "growth": _growth,
    "histories": _histories,
    "labels": _labels,
}

if __name__ == "__main__":
    main()
