"""Time of the KAN against an MLP and a recursive B-spline layer, interleaved in one run.

    python benchmarks/kan.py [--json benchmarks/results/kan.json]

Each round times every contestant once, so that a slow spell of the machine hits them alike; a ratio is the median over
rounds of the quotient within a round. Every form of ours is checked against the recursion before it is timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.pretty import pprint
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.machine import machine
from benchmarks.script import options, write
from kcm.kan import KAN, MLP, KANLinear

SHAPE = (384, 64, 150)
BATCHES = (32, 160, 256, 1024)
NUM_THREADS, ROUNDS, SAMPLE_SECONDS = 2, 9, 0.012
GRID = {"grid_size": 5, "spline_order": 3, "grid_range": (-3.0, 3.0)}
OURS = ("ours", "ours, compiled")
MLPS = ("MLP, equal parameters", "MLP, equal parameters, compiled")


@dataclass(frozen=True)
class Cell:
    """Median milliseconds of a contestant's train step, overall and per round."""

    threads: int
    batch: int
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
        clamped = x.clamp(self.low, self.high - 1e-6).unsqueeze(-1)
        basis = ((clamped >= self.knots[:-1]) & (clamped < self.knots[1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            left_weight = (clamped - self.knots[: -k - 1]) / (self.knots[k:-1] - self.knots[: -k - 1])
            right_weight = (self.knots[k + 1 :] - clamped) / (self.knots[k + 1 :] - self.knots[1:-k])
            basis = left_weight * basis[..., :-1] + right_weight * basis[..., 1:]
        features = torch.cat([F.silu(x).unsqueeze(-2), basis.transpose(-1, -2)], -2)
        return F.linear(features.flatten(-2), self.weight)


def contestants() -> dict[str, nn.Module]:
    """Everything that is timed."""
    our_kan = KAN(SHAPE, **GRID)
    mlp = MLP.matching(our_kan)
    return {
        "ours": our_kan,
        "ours, compiled": torch.compile(our_kan, dynamic=True),
        "MLP, equal parameters": mlp,
        "MLP, equal parameters, compiled": torch.compile(mlp, dynamic=True),
        "recursion": nn.Sequential(*(Recursion(layer) for layer in our_kan.kan_layers)),
    }


def check(modules: dict[str, nn.Module], x: Tensor) -> None:
    """Ours, in every form, is the function that the recursion computes."""
    with torch.no_grad():
        expected = modules["recursion"](x)
        for name in ("ours", "ours, compiled"):
            torch.testing.assert_close(
                modules[name](x), expected, atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
            )


def action(module: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], None]:
    """One repetition of what is timed."""
    # The rate is tiny: a batch of one would soon be learnt by heart, and its vanishing numbers are slow.
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-7, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(x), labels).backward()
        optimizer.step()

    return step


def seconds(run: Callable[[], None], repetitions: int) -> float:
    """Mean seconds of a call."""
    started = time.perf_counter()
    for _ in range(repetitions):
        run()
    return (time.perf_counter() - started) / repetitions


def measure(batch: int, modules: dict[str, nn.Module]) -> list[Cell]:
    """Time a train step at one batch, all contestants in turn."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, SHAPE[0], generator=generator)
    labels = torch.randint(SHAPE[-1], (batch,), generator=generator)
    runs = {name: action(module, x, labels) for name, module in modules.items()}
    repetitions, times = {}, {name: [] for name in runs}
    for name, run in runs.items():
        warm = min(1e3 * seconds(run, 1) for _ in range(3))
        repetitions[name] = max(1, min(200, int(SAMPLE_SECONDS * 1e3 / warm)))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            times[name].append(1e3 * seconds(run, repetitions[name]))
    threads = torch.get_num_threads()
    return [Cell(threads, batch, name, statistics.median(t), t) for name, t in times.items()]


Place = tuple[int, int]
"""Where contestants met: threads and batch."""


def ratio(cells: list[Cell], place: Place, our_names: Sequence[str], peers: Sequence[str]) -> float:
    """Median over rounds of our time as a multiple of the peer's, each the fastest of its names."""
    cells_here = [cell for cell in cells if (cell.threads, cell.batch) == place]
    our_time, peer_time = (
        min((cell for cell in cells_here if cell.contestant in names), key=lambda cell: cell.milliseconds)
        for names in (our_names, peers)
    )
    return statistics.median(a / b for a, b in zip(our_time.rounds, peer_time.rounds, strict=True))


def headline(cells: list[Cell]) -> list[dict[str, object]]:
    """The figures that were promised, each with what was demanded of it."""

    def figure(name: str, value: float, must: float, aim: float, faster: bool = False) -> dict[str, object]:
        is_met = value >= must if faster else value <= must
        return {"figure": name, "value": round(value, 3), "must": must, "aim": aim, "met": is_met}

    value = 1 / ratio(cells, (NUM_THREADS, 1024), OURS, ("recursion",))
    rows = [figure("train step 1024: times faster than the recursion", value, 5, 7, faster=True)]
    for threads in range(1, NUM_THREADS + 1):
        for batch in BATCHES:
            place = (threads, batch)
            name = f"train step {batch}, {threads} thread{'s' * (threads > 1)}: multiple of the MLP's"
            rows.append(figure(f"{name} best", ratio(cells, place, OURS, MLPS), 1.25, 1.1))
            rows.append(figure(f"{name}, neither compiled", ratio(cells, place, OURS[:1], MLPS[:1]), 1.25, 1.1))
    return rows


def main() -> None:
    """Measure everything, print it, and write it down if asked."""
    parser = options(__doc__)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    torch.empty(7_500_000).fill_(0)  # from now on malloc keeps large blocks, for everyone, instead of returning them
    cells: list[Cell] = []
    for threads in range(1, NUM_THREADS):  # the threads of one actor or replica
        torch.set_num_threads(threads)
        modules = {name: module for name, module in contestants().items() if name in OURS + MLPS}
        for batch in reversed(BATCHES):
            cells += measure(batch, modules)
    torch.set_num_threads(NUM_THREADS)
    modules = contestants()
    check(modules, torch.randn(50, SHAPE[0]) * 2)
    for batch in reversed(BATCHES):
        cells += measure(batch, modules)
    times = [
        {"threads": cell.threads, "batch": cell.batch, "contestant": cell.contestant}
        | {"milliseconds": float(f"{cell.milliseconds:.3g}")}
        for cell in cells
    ]
    results = {"machine": machine(), "headline": headline(cells), "cells": times}
    pprint(results)
    if arguments.json:
        write(arguments.json, results)


if __name__ == "__main__":
    main()
