"""The loop's proof, a row of its table per command.

    python benchmarks/loop.py alarm       # delay after a jump of regret, and false alarms
    python benchmarks/loop.py drift       # the same of inputs that move away
    python benchmarks/loop.py histories   # broken certificates over simulated histories of updates
    python benchmarks/loop.py growth      # CPU of training an added task, beside all tasks anew
    python benchmarks/loop.py labels      # labels that a person gives, beside those of uniform labelling
    python benchmarks/loop.py domain      # a new domain on real reviews, beside a run that had all labels; traffic, CPU
    python benchmarks/loop.py intents --clinc FILE                # CLINC150, with intents that appear over time
    python benchmarks/loop.py kills --update 60 --server 30       # SIGKILL of updates and of a server

The first five take minutes at the most on one core and simulate their tables; the others play traffic to real models.
All run the production functions, and print what must hold beside what was found; `--json FILE` writes it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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
    parser.add_argument("--folder", type=Path, help="where runs keep what they make; a temporary folder without one")
    parser.add_argument("--assets", type=Path, default=default_assets(), help="where models and data lie")
    parser.add_argument("--clinc", type=Path, help="CLINC150's data_full.json")
    parser.add_argument("--update", type=int, default=60, metavar="N", help="kills of an update")
    parser.add_argument("--server", type=int, default=30, metavar="N", help="kills of a server")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    with ExitStack() as stack:
        if options.folder is None:
            options.folder = Path(stack.enter_context(TemporaryDirectory()))
        options.folder.mkdir(parents=True, exist_ok=True)
        rows = [Row(*row) for row in _PARTS[options.part](options)]
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


def default_assets() -> Path:
    """Where models and data lie."""
    return Path(os.environ.get("KCM_ASSETS", Path(__file__).parents[1] / "assets"))


def _alarm(options: argparse.Namespace) -> Found:
    from loop_alarm import alarm_rows

    return alarm_rows()


def _domain(options: argparse.Namespace) -> Found:
    from loop_domain import domain_rows

    return domain_rows(options.folder, options.assets, options.seed)


def _drift(options: argparse.Namespace) -> Found:
    from loop_alarm import drift_rows

    return drift_rows()


def _growth(options: argparse.Namespace) -> Found:
    from loop_growth import growth_rows

    return growth_rows()


def _histories(options: argparse.Namespace) -> Found:
    from loop_histories import history_rows

    return history_rows()


def _intents(options: argparse.Namespace) -> Found:
    from loop_intents import intent_rows

    if options.clinc is None:
        raise SystemExit("--clinc FILE names CLINC150's data_full.json")
    return intent_rows(options.folder, options.assets, options.clinc, options.seed)


def _kills(options: argparse.Namespace) -> Found:
    from loop_kills import kill_servers, kill_updates
    from loop_scene import Scene

    scene = Scene(options.folder, options.assets)
    rows = kill_updates(scene, options.update, options.seed) if options.update else []
    return rows + (kill_servers(scene, options.server, options.seed) if options.server else [])


def _labels(options: argparse.Namespace) -> Found:
    from loop_histories import label_rows

    return label_rows()


_PARTS: dict[str, Callable[[argparse.Namespace], Found]] = {
    "alarm": _alarm,
    "domain": _domain,
    "drift": _drift,
    "growth": _growth,
    "histories": _histories,
    "intents": _intents,
    "kills": _kills,
    "labels": _labels,
}

if __name__ == "__main__":
    main()
