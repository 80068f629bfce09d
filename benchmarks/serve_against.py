"""Two versions of the service side by side: how long `kcm serve` takes to be ready, and what its answers cost.

    python benchmarks/serve_against.py CONFIG --against CHECKOUT CONFIG [--only start] [--rounds 5] [--write]

Starts `kcm serve CONFIG` of this checkout and that of another one: a folder with the same packages installed, such as
a worktree of an earlier commit. Each has a configuration of a finished run of its own, since bundles of one version may
not be readable to the other.

`start` starts and stops them in turn; its clock runs from the start of the command to the line that says where it
answers. `answers` lets both stand and loads one, then the other, with the same sentences: the medians of a kept and of
an escalated item with one client, and answers per second with 64. The clients share the cores with what they measure.
`--write` puts ratios of this version to the other into benchmarks/results/serve_against.json; `--named int8` keeps
those of another configuration beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from machine import free_port, machine
from rich.console import Console
from rich.table import Table
from serve_load import Plan, run

from kcm.tasks.readers.reviews import read_reviews

HERE = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "serve_against.json"
MARK = "KCM_BENCHMARK_START"
TICKS = os.sysconf("SC_CLK_TCK")
READY_S = 300.0
NUM_TEXTS, SECONDS, MANY = 300, 10.0, 64

Place = tuple[Path, Path]  # a checkout, and the configuration of a finished run of it
Figures = dict[str, float]
Rounds = dict[str, list[Figures]]  # by version


@contextmanager
def service(place: Place, overrides: Sequence[str], mark: str = "") -> Iterator[tuple[str, float]]:
    """`kcm serve` of a checkout while it stands: its address, and the seconds until it was ready."""
    checkout, config = place
    port = free_port()
    settings = [f"serve.port={port}", *overrides]
    command = [sys.executable, "-m", "jobs.cli", "serve", str(config)]
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, *(part for setting in settings for part in ("--set", setting))],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout), MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "answers at" in line:
                yield f"http://127.0.0.1:{port}", time.monotonic() - began
                return
            if time.monotonic() - began > READY_S:
                break
        raise SystemExit(f"{checkout}: the service was not ready; run {' '.join(command)} to see why")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=90)


def start(places: Mapping[str, Place], overrides: Sequence[str], rounds: int, _: Path) -> Rounds:
    """Seconds until each was ready, and the CPU seconds of each of its processes until then."""
    found: Rounds = {name: [] for name in places}
    for _round in range(rounds):
        for name, place in places.items():
            mark = uuid.uuid4().hex
            with service(place, overrides, mark) as (_url, wall_s):
                spent = _cpu_seconds(mark)
            found[name].append(
                {"seconds to ready": wall_s, "CPU seconds to ready": sum(spent.values())}
                | {f"  {process}": cpu_s for process, cpu_s in spent.items()}
            )
    return found


def answers(places: Mapping[str, Place], overrides: Sequence[str], rounds: int, assets: Path) -> Rounds:
    """Latencies by route with one client, and answers per second with many, of both in turn."""
    texts = [record.text for record in read_reviews(assets) if record.text]
    random.Random(0).shuffle(texts)
    found: Rounds = {name: [] for name in places}
    with ExitStack() as stack:
        urls = {name: stack.enter_context(service(place, overrides))[0] for name, place in places.items()}
        for _round in range(rounds):
            for name, url in urls.items():
                alone = run(Plan(url, texts[:NUM_TEXTS], SECONDS, clients=1))
                found[name].append(
                    {
                        "kept item, ms": alone.milliseconds(0.5, "small"),
                        "escalated item, ms": alone.milliseconds(0.5, "large"),
                        "share of escalated items": alone.route_share("large"),
                    }
                )
            for name, url in urls.items():
                many = run(Plan(url, texts[:NUM_TEXTS], SECONDS, clients=MANY))
                found[name][-1][f"answers/s, {MANY} clients"] = many.per_second
    return found


PARTS: dict[str, Callable[[Mapping[str, Place], Sequence[str], int, Path], Rounds]] = {
    "start": start,
    "answers": answers,
}


def _cpu_seconds(mark: str) -> Figures:
    """CPU seconds so far of all processes that carry the mark in their environment, those they have waited for too."""
    spent: Counter[str] = Counter()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() not in (process / "environ").read_bytes().split(b"\0"):
                continue
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").split()
            ticks = (process / "stat").read_text().rpartition(")")[2].split()[11:15]
        except OSError:
            continue  # gone since
        spent[_name(words)] += sum(map(int, ticks)) / TICKS
    return dict(spent.most_common())


def _name(words: list[str]) -> str:
    if not words:
        return "?"
    if words[0].startswith("ray::"):
        return words[0].removeprefix("ray::")
    script = next((word for word in words[1:] if word.endswith(".py")), words[0])
    return "kcm serve" if "jobs.cli" in words else Path(script).name


def medians(found: Rounds) -> dict[str, Figures]:
    """By figure, the median over the rounds of each version, and their ratio where there are two."""
    shown: dict[str, Figures] = {}
    for figure in dict.fromkeys(figure for each in found.values() for one in each for figure in one):
        values = {name: statistics.median(one.get(figure, 0.0) for one in each) for name, each in found.items()}
        this, *other = values.values()
        shown[figure] = values | ({"ratio": this / other[0]} if other and other[0] else {})
    return shown


def table(part: str, shown: Mapping[str, Figures], rounds: int) -> Table:
    """A row for each figure, a column for each version."""
    made = Table(title=f"{part}: medians of {rounds}", title_style="bold")
    made.add_column("")
    columns = list(dict.fromkeys(column for figures in shown.values() for column in figures))
    for column in columns:
        made.add_column(column, justify="right")
    for figure, figures in shown.items():
        made.add_row(figure, *(f"{figures[column]:.2f}" if column in figures else "" for column in columns))
    return made


def main() -> None:
    """Measure in turn, print the medians, and write them if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="configuration of a finished run")
    parser.add_argument("--against", nargs=2, type=Path, metavar=("CHECKOUT", "CONFIG"), help="another version")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--only", choices=list(PARTS), action="append", help="parts to measure; all without it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--write", action="store_true", help=f"write the figures to {RESULTS}")
    parser.add_argument("--named", default="", help="what the figures are written as, beside those without a name")
    arguments = parser.parse_args()
    places = {"this version": (HERE, arguments.config.absolute())}
    if arguments.against:
        checkout, config = arguments.against
        places["the other"] = (checkout.absolute(), config.absolute())
    for part in arguments.only or PARTS:
        shown = medians(PARTS[part](places, arguments.overrides, arguments.rounds, arguments.assets))
        Console(width=120).print(table(part, shown, arguments.rounds))
        if arguments.write:
            written = json.loads(RESULTS.read_text(encoding="utf-8"))["parts"] if RESULTS.exists() else {}
            kept = {figure: figures for figure, figures in shown.items() if not figure.startswith(" ")}
            named = f"{part}, {arguments.named}" if arguments.named else part
            results = {"machine": {**machine(), "cores": os.cpu_count()}, "parts": {**written, named: kept}}
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
