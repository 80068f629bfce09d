"""A GPU against the processor's cores: encode, the sums of a closed form and its solution, steps of a wide KAN.

    python -m benchmarks.gpu [--rows 100000] [--write]

Needs torch and this package: no Ray, no network. The encoder is a transformer of MiniLM's shape with random weights.
Without a GPU its rows say so. `--quick` is for a test.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from benchmarks.script import keep
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners import Batch
from kcm.learners.analytic import Analytic, AnalyticConfig
from kcm.learners.bounds import FinetuneConfig
from kcm.learners.ranks import Ranks
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import trainer_of

NOT_MEASURED = "not measured: no GPU"
NUM_LABELS, DIM = 20, 32
CURVES = NetworkConfig(hidden=(), basis="pspline", mixing=512, grid_size=4, spline_order=2)
CHUNK = 8192


def seconds(work: Callable[[], object], device: str) -> float:
    """The time of `work`, with everything that a GPU has queued, after one call that warms up."""
    work()
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def rows_of(count: int) -> Batch:
    """Random rows with labels and no answers of a large model."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, DIM, generator=generator)
    labels = torch.randint(NUM_LABELS, (count,), generator=generator)
    return Batch(features, labels, torch.full((count, NUM_LABELS), torch.nan), torch.ones(count))


def encode(device: str, count: int) -> float:
    """Vectors a second of a transformer with six layers of 384, 64 tokens a text."""
    layer = nn.TransformerEncoderLayer(384, 12, 1536, activation="gelu", batch_first=True)
    network = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).to(device).eval()
    tokens = torch.randn(64, 64, 384, device=device)
    num_batches = max(1, count // 64)

    @torch.inference_mode()
    def work() -> None:
        for _ in range(num_batches):
            network(tokens).mean(1)

    return 64 * num_batches / seconds(work, device)


def closed_form(device: str, count: int) -> tuple[float, float]:
    """Rows a second that enter the sums of penalised splines over 512 mixtures, and seconds of a solution."""
    collaborator = Collaborator(DIM, NUM_LABELS, CURVES, "kan", seed=0).to(device)
    learner = Analytic(AnalyticConfig())
    chunk = rows_of(min(count, CHUNK)).to(device)
    num_chunks = max(1, count // CHUNK)

    def absorb() -> None:
        for _ in range(num_chunks):
            learner.absorb(collaborator, chunk, DistillConfig(), Ranks())

    rate = len(chunk) * num_chunks / seconds(absorb, device)
    return rate, seconds(lambda: learner.solve(collaborator, Ranks()), device)


def steps(device: str, count: int) -> float:
    """Rows a second in steps of 4,096 rows of a KAN with 1,024 hidden curves' sums."""
    collaborator = Collaborator(DIM, NUM_LABELS, NetworkConfig(hidden=(1024,)), "kan", seed=0).to(device)
    ids, rows = [str(row) for row in range(count)], rows_of(count)
    task = TensorRows("task", {"train": (ids, rows), "test": (ids[:1], rows.take(torch.arange(1), torch.ones(1)))})
    train = TrainConfig(num_epochs=1, batch_size=min(4096, count))
    start = time.perf_counter()
    trainer_of(collaborator, FinetuneConfig().build(0), [task], train, DistillConfig(), seed=0).run()
    _wait(device)
    return count / (time.perf_counter() - start)


def measured(device: str, rows: int) -> dict[str, float]:
    """All figures on one device."""
    sums, solve = closed_form(device, rows)
    return {
        "texts encoded a second": encode(device, rows // 100),
        "rows a second into the sums": sums,
        "seconds of a solution": solve,
        "rows a second in steps": steps(device, rows),
    }


def table_lines(figures: dict[str, Any]) -> Iterator[str]:
    """A row for each figure: one GPU beside all cores."""
    yield f"{'':28} {'GPU':>22} {str(figures['cores']) + ' cores':>12}"
    for name, on_cpu in figures["cpu"].items():
        there = figures["gpu"][name] if figures["gpu"] else NOT_MEASURED
        yield f"{name:28} {there if isinstance(there, str) else format(there, ',.2f'):>22} {on_cpu:12,.2f}"


def main() -> None:
    """Measure, print, and write the figures with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the figures into gpu.json")
    arguments = parser.parse_args()
    rows = 200 if arguments.quick else arguments.rows
    has_gpu = torch.cuda.is_available()
    figures = {
        "rows": rows,
        "cores": len(os.sched_getaffinity(0)),
        "name": torch.cuda.get_device_name() if has_gpu else NOT_MEASURED,
        "gpu": measured("cuda", rows) if has_gpu else None,
        "cpu": measured("cpu", rows),
    }
    for line in table_lines(figures):
        print(line)
    if arguments.write:
        keep("gpu", figures)


if __name__ == "__main__":
    main()
