"""Time and memory of the KAN against an MLP, a recursive B-spline layer, inkan and pykan, interleaved in one run.

    pip install "kcm-cascade[benchmark]"
    python benchmarks/kan.py [--json benchmarks/results/kan.json]

Each round times every contestant once, so that a slow spell of the machine hits them alike; a ratio is the median over
rounds of the quotient within a round. Every form of ours is checked against the recursion before it is timed.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from machine import machine
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.kan import KAN, MLP, KANLinear

sys.path.remove(str(Path(__file__).resolve().parent))  # where this file would pass for pykan's module
import inkan
from kan import KAN as PyKAN

SHAPES = ((384, 64, 150), (768, 150), (64, 64, 10))
BATCHES = (1, 32, 160, 256, 1024)
KINDS = ("forward", "forward+backward", "train step")
NUM_THREADS, ROUNDS, SAMPLE_SECONDS = 2, 9, 0.012
GRID = {"grid_size": 5, "spline_order": 3, "grid_range": (-3.0, 3.0)}
HEADLINE = SHAPES[0]
OURS = ("ours", "ours, compiled")
MLPS = ("MLP, equal parameters", "MLP, equal parameters, compiled")
WEIGHED = ("ours", "ours, compiled", "inkan", "inkan, compiled", "MLP, equal parameters", "recursion")


@dataclass(frozen=True)
class Cell:
    """Median milliseconds of one contestant, and those of every round."""

    device: str
    threads: int
    shape: tuple[int, ...]
    batch: int
    kind: str
    contestant: str
    milliseconds: float
    rounds: list[float]


class Recursion(nn.Module):
    """The same function by Cox-de Boor recursion (de Boor, A Practical Guide to Splines, X), in plain torch."""

    def __init__(self, layer: KANLinear) -> None:
        super().__init__()
        size, order, step = layer.grid.size, layer.grid.order, (layer.grid.high - layer.grid.low) / layer.grid.size
        self.order, self.low, self.high = order, layer.grid.low, layer.grid.high
        self.register_buffer("knots", layer.grid.low + step * torch.arange(-order, size + order + 1).float())
        self.weight = nn.Parameter(layer.coefficients.detach().flatten(1).clone())

    def forward(self, x: Tensor) -> Tensor:
        inside = x.clamp(self.low, self.high - 1e-6).unsqueeze(-1)
        basis = ((inside >= self.knots[:-1]) & (inside < self.knots[1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            left = (inside - self.knots[: -k - 1]) / (self.knots[k:-1] - self.knots[: -k - 1])
            right = (self.knots[k + 1 :] - inside) / (self.knots[k + 1 :] - self.knots[1:-k])
            basis = left * basis[..., :-1] + right * basis[..., 1:]
        features = torch.cat([F.silu(x).unsqueeze(-2), basis.transpose(-1, -2)], -2)
        return F.linear(features.flatten(-2), self.weight)


def contestants(shape: tuple[int, ...], device: str) -> dict[str, nn.Module]:
    """Everything that is timed at a shape."""
    torch._dynamo.reset()  # or the limit on recompilations would count other shapes
    ours = KAN(shape, **GRID)
    mlp, wide = MLP.matching(ours), MLP(shape)
    layers = [inkan.KANLayer(i, o, grid_range=(-3.0, 3.0), compile_basis=False) for i, o in pairwise(shape)]
    made: dict[str, nn.Module] = {
        "ours": ours,
        "ours, compiled": torch.compile(ours, dynamic=True),
        "MLP, equal parameters": mlp,
        "MLP, equal parameters, compiled": torch.compile(mlp, dynamic=True),
        "MLP, equal widths": wide,
        "inkan": nn.Sequential(*layers),
        "inkan, compiled": torch.compile(nn.Sequential(*layers), dynamic=True),
        "recursion": nn.Sequential(*(Recursion(layer) for layer in ours.kan_layers)),
        "pykan": PyKAN(
            list(shape), grid=5, k=3, grid_range=[-3, 3], auto_save=False, symbolic_enabled=False, save_act=False
        ),
    }
    return {name: module.to(device) for name, module in made.items()}


def check(modules: dict[str, nn.Module], x: Tensor) -> None:
    """Ours, in every form, is the function that the recursion computes."""
    with torch.no_grad():
        expected = modules["recursion"](x)
        for name in ("ours", "ours, compiled"):
            torch.testing.assert_close(
                modules[name](x), expected, atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
            )


def action(module: nn.Module, x: Tensor, labels: Tensor, kind: str) -> Callable[[], None]:
    """One repetition of what is timed."""
    if kind == "forward":

        def forward() -> None:
            with torch.inference_mode():
                module(x)

        return forward

    # The rate is tiny: a batch of one would soon be learnt by heart, and its vanishing numbers are slow.
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-7, fused=True)

    def forward_backward() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(x), labels).backward()

    def step() -> None:
        forward_backward()
        optimizer.step()

    return forward_backward if kind == "forward+backward" else step


def seconds(run: Callable[[], None], repetitions: int) -> float:
    """Mean seconds of a call; a GPU has done what it was given."""
    _wait()
    started = time.perf_counter()
    for _ in range(repetitions):
        run()
    _wait()
    return (time.perf_counter() - started) / repetitions


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(device: str, shape: tuple[int, ...], batch: int, kind: str, modules: dict[str, nn.Module]) -> list[Cell]:
    """Time one kind of work at one shape and batch, all contestants in turn."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, shape[0], generator=generator).to(device)
    labels = torch.randint(shape[-1], (batch,), generator=generator).to(device)
    runs = {name: action(module, x, labels, kind) for name, module in modules.items()}
    repetitions, times = {}, {name: [] for name in runs}
    for name, run in runs.items():
        warm = min(1e3 * seconds(run, 1) for _ in range(3))
        repetitions[name] = max(1, min(200, int(SAMPLE_SECONDS * 1e3 / warm)))
    for index in range(ROUNDS):
        for name, run in runs.items():
            if index < 3 or name != "pykan":  # up to a hundred times slower: three rounds will do
                times[name].append(1e3 * seconds(run, repetitions[name]))
    threads = torch.get_num_threads()
    return [Cell(device, threads, shape, batch, kind, name, statistics.median(t), t) for name, t in times.items()]


Place = tuple[int, tuple[int, ...], int, str]
"""Where contestants met: threads, shape, batch, kind of work."""


def ratio(cells: list[Cell], place: Place, ours: Sequence[str], peers: Sequence[str]) -> float:
    """Median over rounds of our time as a multiple of the peer's, each the fastest of its names."""
    here = [cell for cell in cells if (cell.threads, cell.shape, cell.batch, cell.kind) == place]
    mine, theirs = (
        min((cell for cell in here if cell.contestant in names), key=lambda cell: cell.milliseconds)
        for names in (ours, peers)
    )
    return statistics.median(a / b for a, b in zip(mine.rounds, theirs.rounds, strict=False))


def peak_megabytes(name: str) -> float:
    """Peak memory that a train step of batch 1024 adds, in a process of its own (Linux)."""
    command = [sys.executable, __file__, "--peak", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def print_own_peak(name: str) -> None:
    """What the child of `peak_megabytes` does."""
    torch.set_num_threads(NUM_THREADS)
    module = contestants(HEADLINE, "cpu")[name]
    x, labels = torch.randn(1024, HEADLINE[0]), torch.randint(HEADLINE[-1], (1024,))
    action(module, x[:2], labels[:2], "train step")()  # compile, and give the optimiser its state
    run = action(module, x, labels, "train step")
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    run()
    print((_status("VmHWM") - before) / 1024)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def headline(cells: list[Cell], peaks: dict[str, float]) -> list[dict[str, object]]:
    """The figures that were promised, each with what was demanded of it."""

    def figure(name: str, value: float, must: float, aim: float, faster: bool = False) -> dict[str, object]:
        met = value >= must if faster else value <= must
        return {"figure": name, "value": round(value, 3), "must": must, "aim": aim, "met": met}

    value = 1 / ratio(cells, (NUM_THREADS, HEADLINE, 1024, "train step"), OURS, ("recursion",))
    rows = [figure("train step 1024: times faster than the recursion", value, 5, 7, faster=True)]
    for threads in range(1, NUM_THREADS + 1):
        for batch in BATCHES[1:]:
            place = (threads, HEADLINE, batch, "train step")
            name = f"train step {batch}, {threads} thread{'s' * (threads > 1)}: multiple of the MLP's"
            rows.append(figure(f"{name} best", ratio(cells, place, OURS, MLPS), 1.25, 1.1))
            rows.append(figure(f"{name}, neither compiled", ratio(cells, place, OURS[:1], MLPS[:1]), 1.25, 1.1))
    for batch, aim in ((1, 1.2), (1024, 1.15)):
        value = ratio(cells, (NUM_THREADS, HEADLINE, batch, "forward"), OURS, MLPS)
        rows.append(figure(f"forward {batch}: multiple of the MLP's best", value, 1.5, aim))
    for name, ours, peers in (
        ("inkan, neither compiled", OURS[:1], ("inkan",)),
        ("inkan, both compiled", OURS[1:], ("inkan, compiled",)),
        ("pykan, neither compiled", OURS[:1], ("pykan",)),
    ):
        slowest = min(
            (1 / ratio(cells, (NUM_THREADS, shape, batch, kind), ours, peers), f"{_arrows(shape)}, {kind} {batch}")
            for shape in SHAPES
            for batch in BATCHES
            for kind in KINDS
        )
        rows.append(figure(f"times faster than {name}, at the least ({slowest[1]})", slowest[0], 1, 1.3, True))
    for mode in ("", ", compiled"):
        value = peaks[f"ours{mode}"] / peaks[f"inkan{mode}"]
        rows.append(figure(f"peak memory of a train step 1024{mode}: multiple of inkan's", value, 1, 0.5))
    return rows


def _arrows(shape: tuple[int, ...]) -> str:
    return "→".join(map(str, shape))


def report(console: Console, cells: list[Cell], rows: list[dict[str, object]], peaks: dict[str, float]) -> None:
    """Print what was promised first, then every time."""
    table = Table(title=f"{_arrows(HEADLINE)}, grid 5, cubic, float32")
    for column in ("figure", "measured", "must", "aim", "met"):
        table.add_column(column)
    for row in rows:
        numbers = (f"{row[key]:.3g}" for key in ("value", "must", "aim"))
        table.add_row(str(row["figure"]), *numbers, "yes" if row["met"] else "NO")
    console.print(table)
    console.print("peak MB of a train step 1024: " + ", ".join(f"{name} {peak:.1f}" for name, peak in peaks.items()))
    for device, threads, shape in sorted({(cell.device, cell.threads, cell.shape) for cell in cells}):
        batches = " / ".join(map(str, BATCHES))
        title = f"{device}, threads: {threads}, {_arrows(shape)}: milliseconds at batch {batches}"
        table = Table(title=title)
        table.add_column("contestant")
        for kind in KINDS:
            table.add_column(kind)
        here = (cell for cell in cells if (cell.device, cell.threads, cell.shape) == (device, threads, shape))
        chosen = sorted(here, key=lambda cell: cell.batch)
        for name in dict.fromkeys(cell.contestant for cell in chosen):
            columns = (
                [f"{c.milliseconds:.3g}" for c in chosen if (c.contestant, c.kind) == (name, kind)] for kind in KINDS
            )
            table.add_row(name, *(" / ".join(column) for column in columns))
        console.print(table)


def _written(cell: Cell) -> dict[str, object]:
    """A cell as it is written down: without its rounds, to three digits."""
    fields = {key: value for key, value in asdict(cell).items() if key != "rounds"}
    return {**fields, "milliseconds": float(f"{cell.milliseconds:.3g}")}


def main() -> None:
    """Measure everything, print it, and write it down if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.peak:
        print_own_peak(arguments.peak)
        return

    torch.empty(7_500_000).fill_(0)  # from now on malloc keeps large blocks, for everyone, instead of returning them
    console, cells = Console(width=150), []
    peaks = {name: peak_megabytes(name) for name in WEIGHED}
    for threads in range(1, NUM_THREADS):  # what one actor or replica has, beside the MLP alone
        torch.set_num_threads(threads)
        modules = {name: module for name, module in contestants(HEADLINE, "cpu").items() if name in OURS + MLPS}
        for batch in reversed(BATCHES):
            cells += measure("cpu", HEADLINE, batch, "train step", modules)
    torch.set_num_threads(NUM_THREADS)
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for shape in SHAPES:
            modules = contestants(shape, device)
            check(modules, torch.randn(50, shape[0], device=device) * 2)
            for batch in reversed(BATCHES):
                for kind in KINDS:
                    cells += measure(device, shape, batch, kind, modules)
    rows = headline([cell for cell in cells if cell.device == "cpu"], peaks)
    console.print(machine())
    report(console, cells, rows, peaks)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        written = {
            "machine": machine(),
            "headline": rows,
            "peak_megabytes": peaks,
            "cells": [_written(cell) for cell in cells],
        }
        arguments.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
