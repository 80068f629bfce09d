"""How long it takes until a notebook has an answer: `import kcm`, `kcm.load`, and the first text.

    python benchmarks/load.py SOURCE [--rounds 5] [--assets DIR]

SOURCE is what `kcm.load` takes, such as models:/reviews@champion or the folder of a bundle. Every round is a new
process. On a machine that does other work the CPU seconds are what can be compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from machine import machine
from rich.console import Console
from rich.table import Table

STEPS = ("import kcm", "kcm.load", "first answer")
MEASURED = """
import json, sys, time
found, began = [], (time.perf_counter(), time.process_time())

def step():
    global began
    now = time.perf_counter(), time.process_time()
    found.append([now[0] - began[0], now[1] - began[1]])
    began = now

import kcm
step()
cascade = kcm.load(sys.argv[1], assets=sys.argv[2])
step()
cascade.predict(["An utter delight from start to finish."])
step()
print(json.dumps(found))
"""


def measure(source: str, assets: Path) -> list[list[float]]:
    """Seconds by the clock and of CPU, for each of the steps, in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, source, str(assets)], stdout=subprocess.PIPE, text=True, check=True
    )
    found: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="models:/NAME@ALIAS, models:/NAME/VERSION, or the folder of a bundle")
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rounds = [measure(arguments.source, arguments.assets.absolute()) for _ in range(arguments.rounds)]
    table = Table("step", "seconds", "CPU seconds", title=f"medians of {len(rounds)}, {machine()['cpu']}")
    for place, step in enumerate(STEPS):
        wall, cpu = (statistics.median(found[place][kind] for found in rounds) for kind in (0, 1))
        table.add_row(step, f"{wall:.2f}", f"{cpu:.2f}")
    wall, cpu = (statistics.median(sum(each[kind] for each in found) for found in rounds) for kind in (0, 1))
    table.add_row("all", f"{wall:.2f}", f"{cpu:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
