"""How long `kcm serve` takes to be ready, and the CPU seconds of each of its processes until then.

    python benchmarks/serve_start.py CONFIG [--rounds 5] [--against CHECKOUT CONFIG] [--set KEY=VALUE]

Starts `kcm serve CONFIG` of this checkout and, in turn with it, that of another one: a folder with the same packages
installed, such as a worktree of an earlier commit. Each has a configuration of a finished run of its own, since bundles
of one version may not be readable to the other. The clock runs from the start of the command to the line that says
where it answers. On a machine that does other work the CPU seconds are what can be compared.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from pipelines.serve.deploy.haproxy import free_port

HERE = Path(__file__).parents[1]
MARK = "KCM_BENCHMARK_START"
TICKS = os.sysconf("SC_CLK_TCK")


class Start(NamedTuple):
    """Seconds by the clock until it was ready, and CPU seconds by process."""

    wall_s: float
    cpu_s: dict[str, float]


def measure(checkout: Path, config: Path, overrides: list[str], timeout_s: float = 300.0) -> Start:
    """Start the service of a checkout, and stop it as soon as it is ready."""
    mark = uuid.uuid4().hex
    settings = [f"serve.port={free_port()}", *overrides]
    command = [sys.executable, "-m", "jobs.cli", "serve", str(config)]
    began = time.monotonic()
    service = subprocess.Popen(
        [*command, *(part for setting in settings for part in ("--set", setting))],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout), MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert service.stdout is not None
    try:
        for line in service.stdout:
            if "answers at" in line:
                return Start(time.monotonic() - began, _cpu_seconds(mark))
            if time.monotonic() - began > timeout_s:
                break
        raise SystemExit(f"{checkout}: the service was not ready; run {' '.join(command)} to see why")
    finally:
        service.send_signal(signal.SIGINT)
        service.wait(timeout=90)


def _cpu_seconds(mark: str) -> dict[str, float]:
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


def main() -> None:
    """Measure in turn, and print the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path, help="configuration of a finished run")
    parser.add_argument("--against", nargs=2, type=Path, metavar=("CHECKOUT", "CONFIG"), help="another version")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    contestants = {"this version": (HERE, arguments.config.absolute())}
    if arguments.against:
        checkout, config = arguments.against
        contestants["the other"] = (checkout.absolute(), config.absolute())
    starts: dict[str, list[Start]] = {name: [] for name in contestants}
    for _ in range(arguments.rounds):
        for name, (checkout, config) in contestants.items():
            starts[name].append(measure(checkout, config, arguments.overrides))
    Console(width=120).print(table(starts))


def table(starts: dict[str, list[Start]]) -> Table:
    """Medians over the rounds, a column for each version."""
    shown = Table(title=f"kcm serve to ready, medians of {len(next(iter(starts.values())))}", title_style="bold")
    shown.add_column("")
    for name in starts:
        shown.add_column(name, justify="right")
    rows = {"seconds by the clock": [[start.wall_s for start in each] for each in starts.values()]}
    rows["CPU seconds"] = [[sum(start.cpu_s.values()) for start in each] for each in starts.values()]
    names = Counter(name for each in starts.values() for start in each for name in start.cpu_s)
    for process in names:
        rows[f"  {process}"] = [[start.cpu_s.get(process, 0.0) for start in each] for each in starts.values()]
    for name, values in sorted(rows.items(), key=lambda row: (row[0].startswith("  "), -sum(map(sum, row[1])))):
        medians = [statistics.median(each) for each in values]
        ratio = f" ({medians[0] / medians[1]:.2f}x)" if len(medians) > 1 and medians[1] else ""
        shown.add_row(name, *(f"{median:.2f}" + (ratio if not i else "") for i, median in enumerate(medians)))
    return shown


if __name__ == "__main__":
    main()
