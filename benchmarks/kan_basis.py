"""Learned curves against fixed units of equal size, solved by the same ridge regression on the same rows.

    python benchmarks/kan_basis.py --clinc data_full.json --banking FOLDER [--write]

Contestants are penalised splines over mixtures (`basis: pspline`), and three controls without a learned curve: squares
(quadratic features, with a linear part), ReLU units (a closed-form MLP) and Fourier features, all of random directions.
`parabolas` are an ablation: mixtures of rows as the splines have them, without curves. `kac` is the head of KAC (Hu et
al., CVPR 2025), which learns curves of the features: layer norm, then Gaussian bumps. A draw gives training
rows, as many as the cell says, and up to 4,000 test rows. Strengths are chosen by generalised cross-validation, as in
the product. Seconds are CPU seconds of fit and answers together.

Test rows were read once for the committed figures, and once more each for the parabolas and for `kac`. Before, mixtures
(random, of rows, of class means, whitened) and penalties were tried on two other draws of BANKING77, 1,000 rows each,
and their test rows were looked at in three rounds. Roughness and the number of splines were then chosen by
leave-one-out alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from itertools import product
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.first_table_rows import READERS, Places, Table
from benchmarks.machine import machine
from benchmarks.script import keep, options
from benchmarks.study.rows import NETWORK, batch, fit_at_once
from benchmarks.study.seeds import mean_and_ends
from kcm.collaborator.collaborator import Collaborator, NetworkConfig, NetworkKind
from kcm.kan import KAN, MixedSplines, RandomReLU
from kcm.learners.analytic import AnalyticConfig
from kcm.learners.base import Batch

CELLS = {"banking": (1000, 3000), "clinc": (1000, 3000), "digits": (300, 1000)}
NUM_TEST = 4_000
SPLINES = NETWORK.model_copy(update={"shared": True})
UNBALANCED = AnalyticConfig(class_balance=0)
CONTROLS = ("squares", "relu", "fourier")
_BANDWIDTH = 0.7  # exp(-g |x - y|^2) of unit vectors: the best of .5, .7, 1 and 2 by leave-one-out on other draws


class RandomFourier(RandomReLU):
    """Cosines of random projections with random phases (Rahimi and Recht, 2007), in place of ReLUs."""

    def features(self, x: Tensor) -> Tensor:
        width, num_inputs = self.projection.shape
        generator = torch.Generator().manual_seed(width)
        phase = 2 * math.pi * torch.rand(width, generator=generator, dtype=torch.float64).to(x.dtype)
        # A direction of unit length becomes one of a normal vector's length; rows have the length sqrt(num_inputs).
        length = torch.randn(width, num_inputs, generator=generator).norm(dim=1).to(x.dtype)
        scale = length * math.sqrt(2 * _BANDWIDTH / num_inputs)
        return torch.cos(F.linear(x, self.projection.to(x.dtype)) * scale + phase)


class KacHead(RandomReLU):
    """16 Gaussian bumps of every feature after layer norm, from -2 to 2, as wide as they are apart; no projection."""

    BUMPS: ClassVar[int] = 16  # KAC's own number: more coefficients than the others on MiniLM, fewer on digits

    @classmethod
    def matching(cls, network: KAN | RandomReLU, *, seed: int = 0) -> KacHead:
        """The head for the inputs and outputs of `network`, whatever its size."""
        dim, num_outputs = network.widths
        return cls(dim, cls.BUMPS * dim, num_outputs, seed=seed)

    def features(self, x: Tensor) -> Tensor:
        """The bumps, [..., 16 D]."""
        centres = torch.linspace(-2, 2, self.BUMPS, dtype=x.dtype)
        offset = F.layer_norm(x, x.shape[-1:]).unsqueeze(-1) - centres
        return torch.exp(-(offset / (centres[1] - centres[0])).square()).flatten(-2)


def contestant(name: str, dim: int, num_labels: int, seed: int, network: NetworkConfig = SPLINES) -> Collaborator:
    """A collaborator of the product of as many coefficients as `network`; Fourier features and KAC are built here."""
    kinds: Mapping[str, NetworkKind] = {
        "splines": "kan",
        "parabolas": "kan",
        "squares": "quadratic",
        "relu": "random_relu",
    }
    collaborator = Collaborator(dim, num_labels, network, kinds.get(name, "random_relu"), seed)
    if head := {"fourier": RandomFourier, "kac": KacHead}.get(name):
        collaborator.judge = collaborator.small = head.matching(collaborator.judge, seed=seed)
    if name == "parabolas":
        collaborator.judge = collaborator.small = parabolas(collaborator.judge, seed)
    return collaborator.requires_grad_(False)


def parabolas(kan: MixedSplines, seed: int) -> MixedSplines:
    """Of `kan` the first function alone, about a parabola, of more mixtures: what mixtures do without curves."""
    (dim, num_labels), num_coefficients = kan.widths, kan.weight.shape[1]
    network = MixedSplines(dim, num_coefficients - dim - 1, num_labels, kan.grid, SPLINES.roughness, seed=seed)
    network.turn = network.turn[:1]
    network.weight = nn.Parameter(kan.weight.detach().clone())
    return network


def drawn(table: Table, num_rows: int, seed: int) -> tuple[Batch, Batch]:
    """Train and test rows."""
    order = np.random.default_rng([num_rows, seed]).permutation(len(table.labels))
    train, test = order[:num_rows], order[num_rows : num_rows + NUM_TEST]
    return batch(table.features[train], table.labels[train]), batch(table.features[test], table.labels[test])


def measured(
    name: str, train: Batch, test: Batch, num_labels: int, network: NetworkConfig, seed: int
) -> dict[str, Any]:
    """Right in %, and the CPU seconds that fit and answers take."""
    start = time.process_time()
    collaborator = contestant(name, train.features.shape[1], num_labels, seed, network)
    fit_at_once(collaborator, train, UNBALANCED)
    with torch.no_grad():
        answers = collaborator(test.features)[0].argmax(1)
    seconds = time.process_time() - start
    accuracy = 100 * float((answers == test.labels).double().mean())
    return {"right": accuracy, "cpu_s": seconds, "coefficients": collaborator.judge.weight.shape[1]}


def summary(draws: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over draws, and splines minus each control with a paired 95% interval, in points."""
    lines = []
    for (table, rows), group in pd.DataFrame(draws).groupby(["table", "rows"], sort=False):
        accuracies = group.pivot(index="seed", columns="name", values="right")
        line: dict[str, Any] = {"table": table, "rows": int(rows), "draws": len(accuracies)}
        line["right"] = {name: round(float(value), 2) for name, value in accuracies.mean().items()}
        line["cpu_s"] = {name: round(float(cpu), 2) for name, cpu in group.groupby("name")["cpu_s"].mean().items()}
        line["best_control"] = best = max(CONTROLS, key=lambda name: accuracies[name].mean())
        pairs = (("splines", best), ("splines, 640", best), ("splines", "parabolas"), ("splines", "kac"))
        for name, control in pairs:
            if control not in accuracies or accuracies[control].isna().any():
                continue
            ends = mean_and_ends(accuracies[name] - accuracies[control], 0)
            line[f"{name} - {control}"] = [round(value, 2) for value in ends]
        lines.append(line)
    return lines


def main() -> None:
    parser = options(__doc__, True, "", "kan_basis", ("clinc", "banking"), "storage/features", only=CELLS)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    places = Places(arguments.assets, arguments.clinc, arguments.banking, arguments.features)
    networks = dict.fromkeys(("splines", *CONTROLS, "kac", "parabolas"), SPLINES)
    networks["splines, 640"] = SPLINES.model_copy(update={"mixing": 640})
    draws = []
    for name in arguments.only:
        table = READERS[name](places)
        num_labels = int(table.labels.max()) + 1
        for num_rows, seed in product(CELLS[name], range(arguments.seeds)):
            train, test = drawn(table, num_rows, seed)
            for contestant_name, network in networks.items():
                figures = measured(contestant_name.split(",")[0], train, test, num_labels, network, seed)
                draws.append({"table": name, "rows": num_rows, "seed": seed, "name": contestant_name} | figures)
                print(json.dumps(draws[-1]), flush=True)
    cells = summary(draws)
    for line in cells:
        print(json.dumps(line))
    if arguments.write:
        keep("kan_basis", {"machine": machine(), "cells": cells})


if __name__ == "__main__":
    main()
