"""Recover f(x, y) = exp(sin(pi x) + y^2) from samples, and draw the network that found it.

python benchmarks/kan_formula.py [--image docs/images/kan_formula.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from kcm.kan import KAN
from kcm.kan.inspect.curves import edge_values
from kcm.kan.inspect.plotting import plot_network
from kcm.kan.inspect.pruning import prune
from kcm.kan.inspect.symbolic import formula

NUM_ROWS, BATCH = 2000, 512


def target(x_N2: Tensor) -> Tensor:
    """exp(sin(pi x) + y^2), [N, 1]."""
    return torch.exp(torch.sin(torch.pi * x_N2[:, :1]) + x_N2[:, 1:] ** 2)


def total_deviation(network: KAN, x_NI: Tensor) -> Tensor:
    """Sum over all edges of the standard deviation of what they add: the pressure to do with few edges."""
    total = x_NI.new_zeros(())
    for layer in network.kan_layers:
        total = total + (edge_values(layer, x_NI).var(0, correction=0) + 1e-8).sqrt().sum()
        x_NI = layer(x_NI)
    return total


def fit(network: KAN, x_N2: Tensor, num_steps: int, sparsity: float, generator: torch.Generator) -> float:
    """Least squares with Adam; returns the last mean squared error."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=num_steps)
    for _ in range(num_steps):
        rows_N2 = x_N2[torch.randint(len(x_N2), (BATCH,), generator=generator)]
        error = F.mse_loss(network(rows_N2), target(rows_N2))
        loss = error + sparsity * total_deviation(network, rows_N2) if sparsity else error
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return error.item()


def recover(seed: int = 0) -> tuple[KAN, Tensor]:
    """Train 5 hidden nodes under pressure to use few, prune to those that matter, and train on."""
    generator = torch.Generator().manual_seed(seed)
    x_N2 = torch.rand(NUM_ROWS, 2, generator=generator) * 2 - 1
    network = KAN([2, 5, 1], grid_size=10, grid_range=(-2.0, 2.0), seed=seed)
    print(f"trained    {network.widths}: mean squared error {fit(network, x_N2, 3000, 3e-3, generator):.1e}")
    pruned = prune(network, x_N2, threshold=0.15).network
    print(f"retrained  {pruned.widths}: mean squared error {fit(pruned, x_N2, 1500, 0.0, generator):.1e}")
    return pruned, x_N2


def main() -> None:
    """Print the formula that was found, and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--image", type=Path, default=Path("docs/images/kan_formula.png"))
    image = parser.parse_args().image
    network, x_N2 = recover()
    found = formula(network, x_N2, ["x", "y"])[0]
    print(f"formula    f(x, y) = {found}")
    image.parent.mkdir(parents=True, exist_ok=True)
    figure = plot_network(network, x_N2, inputs=["x", "y"], outputs=["f"], symbolic=True, title=f"f(x, y) = {found}")
    figure.savefig(image, dpi=130)
    print(f"picture    {image}")


if __name__ == "__main__":
    main()
