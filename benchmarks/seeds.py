"""A training step of several seeds as one batched computation, against a step of each as a study takes them.

    python benchmarks/seeds.py [--seeds 3 10] [--write]

The networks of S seeds are stacked: one `torch.bmm` for every matrix product, splines of all rows at once, one step of
AdamW for all; or the same by `torch.func`. Every seed has its own rows. Gathering rows and drawing remembered ones is
left out, since seeds share none of it. A figure is CPU seconds of S single steps as a multiple of those of the step for
all: the median over rounds that take both in turn, on one thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from machine import machine
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from kcm.collaborator.class_base import UNSEEN
from kcm.collaborator.collaborator import Collaborator, NetworkConfig, NetworkKind
from kcm.collaborator.distill import DistillConfig
from kcm.kan import KANLinear
from kcm.kan.basis import Grid, edge_features_in_place
from kcm.kan.powers import fold_matrix, power_gradient, power_terms
from kcm.learners.base import Batch, Classes
from kcm.learners.finetune import Finetune
from kcm.learners.ranks import Ranks
from kcm.learners.training.objective import Objective
from kcm.learners.training.optimizers import AdamW

RESULTS = Path(__file__).parent / "results" / "seeds.json"
FEATURES, LABELS, ROUNDS, SAMPLE_SECONDS = 384, 77, 7, 0.03
RATE, DECAY = 1e-7, 1e-2  # a rate so small that the work stays the same
CASES: tuple[tuple[str, NetworkKind, tuple[int, ...]], ...] = (
    ("KAN 384→64→77", "kan", (64,)),
    ("KAN 384→77", "kan", ()),
    ("MLP, equal parameters", "mlp", (64,)),
    ("linear", "linear", ()),
)
BATCHES = (32, 160, 288)  # without remembered rows; with the 128 of the defaults; with 256


class StoredSplines(torch.autograd.Function):
    """`kcm.kan.eager.FewRows` of S networks: features stored, one batched product each way."""

    @staticmethod
    def forward(ctx: Any, x_SNI: Tensor, weight_SOF: Tensor, grid: Grid) -> Tensor:
        features_SNF = edge_features_in_place(x_SNI.flatten(0, 1), grid).view(*x_SNI.shape[:2], -1)
        ctx.save_for_backward(x_SNI, weight_SOF, features_SNF)
        ctx.grid = grid
        return torch.bmm(features_SNF, weight_SOF.mT)

    @staticmethod
    def backward(ctx: Any, gradient_SNO: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x_SNI, weight_SOF, features_SNF = ctx.saved_tensors
        x_gradient = None
        if ctx.needs_input_grad[0]:
            by_spline_NFI = torch.bmm(gradient_SNO, weight_SOF).view(-1, 1 + ctx.grid.num_basis, x_SNI.shape[2])
            fold_TF = fold_matrix(ctx.grid, x_SNI.dtype)[:-1]
            by_power_NTI = torch.bmm(fold_TF.expand(len(by_spline_NFI), -1, -1), by_spline_NFI)
            x_gradient = power_gradient(by_power_NTI, x_SNI.flatten(0, 1), ctx.grid).view_as(x_SNI)
        return x_gradient, torch.bmm(gradient_SNO.mT, features_SNF), None


class RecomputedPowers(torch.autograd.Function):
    """`kcm.kan.eager.ManyRows` of S networks' first layers: one batched product a term, while it is in cache.

    Splines that no row touches keep a gradient of rounding errors here, which is less work than the layer does.
    """

    @staticmethod
    def forward(ctx: Any, x_SNI: Tensor, weight_SOF: Tensor, grid: Grid) -> Tensor:
        num_seeds, num_outputs = weight_SOF.shape[:2]
        fold_TF = fold_matrix(grid, x_SNI.dtype)
        blocks_XFI = weight_SOF.view(num_seeds * num_outputs, -1, x_SNI.shape[2])
        folded_SOTI = torch.bmm(fold_TF.expand(len(blocks_XFI), -1, -1), blocks_XFI).unflatten(0, (num_seeds, -1))
        out_SNO = folded_SOTI[:, :, -1].sum(-1).unsqueeze(1).expand(-1, x_SNI.shape[1], -1).contiguous()
        for index, term_NI in enumerate(power_terms(x_SNI.flatten(0, 1), grid)):
            out_SNO.baddbmm_(term_NI.view_as(x_SNI), folded_SOTI[:, :, index].mT)
        ctx.save_for_backward(x_SNI)
        ctx.grid = grid
        return out_SNO

    @staticmethod
    def backward(ctx: Any, gradient_SNO: Tensor) -> tuple[None, Tensor, None]:
        (x_SNI,) = ctx.saved_tensors
        fold_TF, gradient_SON = fold_matrix(ctx.grid, x_SNI.dtype), gradient_SNO.mT
        by_power_SOTI = x_SNI.new_empty(*gradient_SON.shape[:2], len(fold_TF), x_SNI.shape[2])
        for index, term_NI in enumerate(power_terms(x_SNI.flatten(0, 1), ctx.grid)):
            by_power_SOTI[:, :, index] = torch.bmm(gradient_SON, term_NI.view_as(x_SNI))
        by_power_SOTI[:, :, -1] = gradient_SNO.sum(1).unsqueeze(2)
        blocks_XTI = by_power_SOTI.flatten(0, 1)
        by_spline_XFI = torch.bmm(fold_TF.t().expand(len(blocks_XTI), -1, -1), blocks_XTI)
        return None, by_spline_XFI.view(*gradient_SON.shape[:2], -1), None


class Stacked:
    """The networks of S seeds, layer by layer, as tensors with a leading dimension for the seeds."""

    def __init__(self, networks: Sequence[nn.Module], first: type[torch.autograd.Function]) -> None:
        self._first = first
        self._layers = [self._stack(layers) for layers in zip(*(each.layers for each in networks), strict=True)]
        self.parameters = [part for _, *parts in self._layers for part in parts if part is not None]

    def __call__(self, x_SNI: Tensor) -> Tensor:
        for number, (layer, weight_SOF, bias_SO) in enumerate(self._layers):
            if isinstance(layer, KANLinear):
                function = StoredSplines if number else self._first
                x_SNI = function.apply(x_SNI, weight_SOF, layer.grid) * layer.scale
            else:
                x_SNI = torch.baddbmm(bias_SO.unsqueeze(1), F.silu(x_SNI) if number else x_SNI, weight_SOF.mT)
        return x_SNI

    @staticmethod
    def _stack(layers: Sequence[nn.Module]) -> tuple[nn.Module, nn.Parameter, nn.Parameter | None]:
        weight, bias = ([getattr(layer, name) for layer in layers] for name in ("weight", "bias"))
        biases = None if bias[0] is None else nn.Parameter(torch.stack(bias).detach())
        return layers[0], nn.Parameter(torch.stack(weight).detach()), biases


def steps(kind: NetworkKind, hidden: tuple[int, ...], num_seeds: int, num_rows: int) -> dict[str, Callable[[], Tensor]]:
    """A step of every seed: by itself as the trainer takes it, and all at once in each form; each gives the loss."""
    network = NetworkConfig(hidden=hidden, shared=True)
    collaborators = [Collaborator(FEATURES, LABELS, network, kind, seed) for seed in range(num_seeds)]
    generator, unanswered = torch.Generator().manual_seed(0), torch.full((num_rows, LABELS), torch.nan)
    batches = [
        Batch(
            torch.randn(num_rows, FEATURES, generator=generator),
            torch.randint(LABELS, (num_rows,), generator=generator),
            unanswered,
            torch.ones(num_rows),
        )
        for _ in range(num_seeds)
    ]
    seen_C, judges = torch.ones(LABELS, dtype=torch.bool), [each.judge for each in collaborators]
    stacked = [Stacked(judges, StoredSplines)] + [Stacked(judges, RecomputedPowers)] * (kind == "kan")
    shared, (states, buffers) = judges[0], stack_module_state(judges)
    parameters = {name: state.detach().requires_grad_() for name, state in states.items()}
    of_seeds = vmap(lambda state, buffer, x_NI: functional_call(shared, (state, buffer), (x_NI,)))
    together = {
        **dict(zip(("batched", "batched, recomputed"), ((each, each.parameters) for each in stacked), strict=False)),
        "torch.func": (lambda x_SNI: of_seeds(parameters, buffers, x_SNI), list(parameters.values())),
    }
    return {"alone": _alone(collaborators, batches, Classes(seen_C, seen_C))} | {
        name: _together(forward, given, collaborators[0], batches) for name, (forward, given) in together.items()
    }


def _alone(collaborators: Sequence[Collaborator], batches: Sequence[Batch], classes: Classes) -> Callable[[], Tensor]:
    objectives = [Objective(each, Finetune(), DistillConfig(), classes, True) for each in collaborators]
    optimizers = [AdamW(each.parameters(), RATE, DECAY) for each in collaborators]
    ranks = Ranks()

    def run() -> Tensor:
        total = torch.zeros(())
        for objective, optimizer, batch in zip(objectives, optimizers, batches, strict=True):
            optimizer.zero_grad()
            loss = objective.loss(batch, None, len(batch), ranks)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total

    return run


def _together(
    forward: Callable[[Tensor], Tensor], parameters: list[nn.Parameter], like: Collaborator, batches: Sequence[Batch]
) -> Callable[[], Tensor]:
    optimizer, unseen_C = AdamW(parameters, RATE, DECAY), torch.zeros(LABELS, dtype=torch.bool)

    def run() -> Tensor:
        optimizer.zero_grad()
        inputs_SNI = like.inputs(torch.stack([batch.features for batch in batches]))
        labels_X, weights_X = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("labels", "weights"))
        logits_SNC = forward(inputs_SNI).masked_fill(unseen_C, UNSEEN)
        loss_X = F.cross_entropy(logits_SNC.flatten(0, 1), labels_X, reduction="none")
        loss = (loss_X * weights_X).sum() / inputs_SNI.shape[1]
        loss.backward()
        optimizer.step()
        return loss.detach()

    return run


def measured(kind: NetworkKind, hidden: tuple[int, ...], num_seeds: int, num_rows: int) -> dict[str, float]:
    """CPU milliseconds of a seed's step alone, and how many times fewer each other form takes for it."""
    runs = steps(kind, hidden, num_seeds, num_rows)
    first, *others = (float(run()) for run in runs.values())
    if any(abs(other - first) > 1e-4 * first for other in others):
        raise AssertionError("the forms do not give the same loss")
    repetitions = {name: max(1, int(SAMPLE_SECONDS / cpu_seconds(run, 3))) for name, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            times[name].append(cpu_seconds(run, repetitions[name]))
    alone = times.pop("alone")
    ratios = {
        name: round(statistics.median(one / other for one, other in zip(alone, own, strict=True)), 2)
        for name, own in times.items()
    }
    return {"alone_ms": round(1e3 * statistics.median(alone) / num_seeds, 2), **ratios}


def cpu_seconds(run: Callable[[], object], repetitions: int) -> float:
    """Mean CPU seconds of a call."""
    started = time.process_time()
    for _ in range(repetitions):
        run()
    return (time.process_time() - started) / repetitions


def main() -> None:
    """Measure, print, and write down with `--write`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10], help="numbers of seeds")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULTS.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.empty(7_500_000).fill_(0)  # from now on malloc keeps large blocks instead of returning them
    table = Table(title="CPU of a step of each seed alone, as a multiple of its share in one step for all")
    for heading in ("network", "rows", "seeds", "alone, ms", "batched", "recomputed", "torch.func"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    found: dict[str, Any] = {}
    for name, kind, hidden in CASES:
        for num_rows in BATCHES:
            for num_seeds in arguments.seeds:
                row = measured(kind, hidden, num_seeds, num_rows)
                found[f"{name}, {num_rows} rows, {num_seeds} seeds"] = row
                shown = [row["alone_ms"], *(row.get(form) for form in ("batched", "batched, recomputed", "torch.func"))]
                cells = ("–" if figure is None else f"{figure:.2f}" for figure in shown)
                table.add_row(name, str(num_rows), str(num_seeds), *cells)
    Console(width=100).print(table)
    if arguments.write:
        RESULTS.write_text(json.dumps({"machine": machine(), "steps": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
