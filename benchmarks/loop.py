"""The loop's proof, a row of its table per command.

    python benchmarks/loop.py alarm    # delay after a jump of regret
    python benchmarks/loop.py drift    # delay after inputs move away, and false alarms
    python benchmarks/loop.py labels   # labels that a person gives, beside those of uniform labelling

Each takes minutes at the most on one core, simulates its table, runs the production functions, and prints what must
hold beside what was found; `--json FILE` writes it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

from loop_alarm import alarm_rows, drift_rows
from loop_labels import label_rows
from machine import machine
from rich.console import Console
from rich.table import Table

COLUMNS = ("figure", "must", "aim", "found")
PARTS: dict[str, Callable[[], list[tuple[str, str, str, str]]]] = {
    "alarm": alarm_rows,
    "drift": drift_rows,
    "labels": label_rows,
}


def main() -> None:
    """Measure one part and print its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    started = time.perf_counter()
    rows = PARTS[options.part]()
    seconds = time.perf_counter() - started
    table = Table(*COLUMNS, title=f"benchmarks/loop.py {options.part}", title_justify="left")
    for row in rows:
        table.add_row(*row)
    console = Console(width=140)
    console.print(table)
    console.print(f"{machine()['cpu']}, {seconds:.0f} s", highlight=False)
    if options.json:
        found = {
            "rows": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
            "machine": machine(),
            "seconds": seconds,
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
