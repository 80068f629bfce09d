"""Our optimisers take the steps of torch's, bit for bit, and know its states."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from kcm.kan import KAN
from kcm.learners.training.optimizers import SGD, AdamW, Optimizer

Pair = tuple[Callable[..., Optimizer], Callable[..., torch.optim.Optimizer]]

PAIRS: dict[str, Pair] = {
    "adamw": (lambda p: AdamW(p, 0.01, 0.1), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1)),
    "adamw without decay": (lambda p: AdamW(p, 0.01, 0.0), lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.0)),
    "sgd": (lambda p: SGD(p, 0.1, 0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
}


def train(network: nn.Module, optimizer: Any, first: int, last: int) -> None:
    for step in range(first, last):
        rate = 0.01 / (1 + step)
        if isinstance(optimizer, Optimizer):
            optimizer.rate = rate
        else:
            optimizer.param_groups[0]["lr"] = rate
        x = torch.randn(16, 5, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()


def weights(network: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(network.parameters())


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_steps_are_those_of_torch_bit_for_bit(pair: Pair) -> None:
    ours, theirs = KAN([5, 4, 3], seed=1), KAN([5, 4, 3], seed=1)
    train(ours, pair[0](ours.parameters()), 0, 30)
    train(theirs, pair[1](theirs.parameters()), 0, 30)
    assert torch.equal(weights(ours), weights(theirs))


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("first", [0, 1], ids=["ours", "torch's"])
def test_either_goes_on_where_the_other_or_itself_was_stopped(first: int, pair: Pair) -> None:
    whole = KAN([5, 4, 3], seed=1)
    train(whole, pair[0](whole.parameters()), 0, 20)
    stopped = KAN([5, 4, 3], seed=1)
    before = pair[first](stopped.parameters())
    train(stopped, before, 0, 8)
    after = pair[0](stopped.parameters())
    after.load_state_dict(before.state_dict())
    train(stopped, after, 8, 20)
    assert torch.equal(weights(stopped), weights(whole))


def test_a_parameter_without_a_gradient_stays_where_it_is() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = AdamW([unused, used], 0.1, 0.5)
    used.sum().backward()
    optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))
    assert optimizer.state_dict()["state"].keys() == {1}


def test_a_step_does_without_the_compiler() -> None:
    program = """
import sys, torch
from kcm.kan import KANLinear
from kcm.learners.training.config import TrainConfig
layer = KANLinear(3, 2)
for name in ("adamw", "sgd"):
    optimizer = TrainConfig(optimizer=name).build(layer.parameters())
    layer(torch.ones(4, 3)).sum().backward()
    optimizer.step()
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
