"""Other ways to compute the same KAN, each against the one that was kept, interleaved in one run.

    python benchmarks/kan_variants.py [--json benchmarks/results/kan_variants.json]

These are the ideas that lost; `docs/kan.md` says by how much. A ratio is the median over rounds of the variant's time
as a multiple of ours within a round. Every variant is checked against the layer before it is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from machine import machine
from rich.console import Console
from rich.table import Table
from steps import answer, seconds, train_step
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.kan import KAN, KANLinear
from kcm.kan.basis import edge_features, spline_basis
from kcm.kan.eager import FewRows, ManyRows

SHAPE, NUM_THREADS, ROUNDS, SAMPLE_SECONDS = (384, 64, 150), 2, 15, 0.012


class Gathered(nn.Module):
    """Only the order + 1 splines that are not zero: an `embedding_bag` over rows of the transposed weight."""

    def __init__(self, layer: KANLinear) -> None:
        super().__init__()
        self.grid, weight_OFI = layer.grid, layer.coefficients.detach()
        self.base_OI = weight_OFI[:, 0].contiguous()
        self.rows_RO = weight_OFI[:, 1:].permute(2, 1, 0).flatten(0, 1).contiguous()  # row i * K + k
        self.first_I1 = torch.arange(layer.in_features).unsqueeze(1) * layer.grid.num_basis
        self.near_S = torch.arange(layer.grid.order + 1)

    def forward(self, x_NI: Tensor) -> Tensor:
        position_NI = self.grid.position(x_NI)
        interval_NI = position_NI.floor().clamp_(max=self.grid.size - 1)
        within_NI1 = (position_NI - interval_NI).unsqueeze(-1)
        centre_S = self.near_S - (self.grid.order - 1) / 2
        rise = (self.grid.reach - (within_NI1 - centre_S).abs()).relu()
        value_NIS = (rise**3 - 4 * (rise - 1).relu() ** 3) / 6
        index_NIS = self.first_I1 + interval_NI.long().unsqueeze(-1) + self.near_S
        splines_NO = F.embedding_bag(
            index_NIS.flatten(1), self.rows_RO, per_sample_weights=value_NIS.flatten(1), mode="sum"
        )
        return splines_NO.addmm_(F.silu(x_NI), self.base_OI.t())


class Tabulated(nn.Module):
    """Every curve as a table of `size` straight pieces over the grid: two rows per input instead of order + 1."""

    def __init__(self, layer: KANLinear, size: int = 64) -> None:
        super().__init__()
        self.low, self.high, self.size, weight_OFI = layer.grid.low, layer.grid.high, size, layer.coefficients.detach()
        self.base_OI = weight_OFI[:, 0].contiguous()
        points_P1 = torch.linspace(self.low, self.high, size + 1).unsqueeze(1)
        splines_PK = spline_basis(points_P1, layer.grid).squeeze(-1)
        self.rows_RO = torch.einsum("pk,oki->ipo", splines_PK, weight_OFI[:, 1:]).flatten(0, 1).contiguous()
        self.first_I1 = torch.arange(layer.in_features).unsqueeze(1) * (size + 1)
        self.near_2 = torch.arange(2)

    def forward(self, x_NI: Tensor) -> Tensor:
        position_NI = (x_NI.clamp(self.low, self.high) - self.low) * (self.size / (self.high - self.low))
        piece_NI = position_NI.floor().clamp_(max=self.size - 1)
        right_NI = position_NI - piece_NI
        index_NI2 = self.first_I1 + piece_NI.long().unsqueeze(-1) + self.near_2
        weight_NI2 = torch.stack([1 - right_NI, right_NI], -1)
        splines_NO = F.embedding_bag(
            index_NI2.flatten(1), self.rows_RO, per_sample_weights=weight_NI2.flatten(1), mode="sum"
        )
        return splines_NO.addmm_(F.silu(x_NI), self.base_OI.t())


class Plain(nn.Module):
    """The closed form in plain autograd, which stores every intermediate."""

    def __init__(self, layer: KANLinear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x_NI: Tensor) -> Tensor:
        return F.linear(edge_features(x_NI, self.layer.grid).flatten(-2), self.layer.weight) * self.layer.scale


class Forced(nn.Module):
    """One of the two hand-written autograd functions, whatever the batch."""

    def __init__(self, layer: KANLinear, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.layer, self.function = layer, function

    def forward(self, x_NI: Tensor) -> Tensor:
        return self.function.apply(x_NI, self.layer.weight, self.layer.grid) * self.layer.scale


class HalfPrecision(nn.Module):
    """The network in bfloat16."""

    def __init__(self, network: KAN) -> None:
        super().__init__()
        self.network = KAN.from_layers(network.kan_layers)
        self.network.load_state_dict(network.state_dict())

    def forward(self, x_NI: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.network(x_NI).float()


def answering(network: KAN) -> dict[str, nn.Module]:
    """Forms that only answer; ours first."""
    layers = network.kan_layers
    return {
        "ours: serving form": network.export(),
        "gather of non-zero splines": nn.Sequential(*map(Gathered, layers)),
        "table of 64 straight pieces": nn.Sequential(*map(Tabulated, layers)),
        "plain closed form": nn.Sequential(*map(Plain, layers)),
        "bfloat16 autocast": HalfPrecision(network),
        "serving form, compiled": torch.compile(network.export(), dynamic=True),
    }


def training(network: KAN) -> dict[str, nn.Module]:
    """Forms that learn; ours first."""
    layers = network.kan_layers
    return {
        "ours: eager": network,
        "plain autograd": nn.Sequential(*map(Plain, layers)),
        "splines stored, always": nn.Sequential(*(Forced(layer, FewRows) for layer in layers)),
        "powers recomputed, always": nn.Sequential(*(Forced(layer, ManyRows) for layer in layers)),
        "compiled": torch.compile(network, dynamic=True),
        "bfloat16 autocast": HalfPrecision(network),
    }


def ratios(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Time of each as a multiple of the first's: the median over rounds that time all of them in turn."""
    repetitions = {}
    for name, run in runs.items():
        repetitions[name] = max(1, min(300, int(SAMPLE_SECONDS / min(seconds(run, 1) for _ in range(4)))))
    times = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            times[name].append(seconds(run, repetitions[name]))
    ours = next(iter(times.values()))
    return {name: statistics.median(a / b for a, b in zip(theirs, ours, strict=True)) for name, theirs in times.items()}


def largest_errors(modules: dict[str, nn.Module], network: KAN) -> dict[str, float]:
    """Largest difference of any logit from the layers' own, over 4,096 normal rows of logits about 1 in size."""
    x_NI = torch.randn(4096, SHAPE[0], generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected_NO = network(x_NI)
        return {name: float((module(x_NI) - expected_NO).abs().max()) for name, module in modules.items()}


def main() -> None:
    """Measure, print, and write down if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(NUM_THREADS)
    torch.empty(7_500_000).fill_(0)  # from now on malloc keeps large blocks instead of returning them
    network, console = KAN(SHAPE, seed=0), Console(width=120)
    written: dict[str, object] = {"machine": machine(), "shape": SHAPE}
    for title, make, action, batches in (
        ("forward", answering, answer, (1, 4, 32, 1024)),
        ("train step", training, partial(train_step, num_labels=SHAPE[-1]), (32, 256, 1024)),
    ):
        modules = make(network)
        errors = largest_errors(modules, network)
        by_batch = {}
        for batch in batches:
            x_NI = torch.randn(batch, SHAPE[0], generator=torch.Generator().manual_seed(0))
            by_batch[batch] = ratios({name: action(module, x_NI) for name, module in modules.items()})
        table = Table(title=f"{title}, {'→'.join(map(str, SHAPE))}: time as a multiple of ours")
        for column in ("variant", *(f"batch {batch}" for batch in batches), "largest error"):
            table.add_column(column, justify="left" if column == "variant" else "right")
        for name in modules:
            table.add_row(name, *(f"{by_batch[batch][name]:.2f}" for batch in batches), f"{errors[name]:.1e}")
        console.print(table)
        written[title] = {
            name: {f"batch {b}": round(by_batch[b][name], 2) for b in batches} | {"largest_error": errors[name]}
            for name in modules
        }
    console.print(machine())
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
