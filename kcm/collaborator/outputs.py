"""Outputs per label: a network has as many outputs as there are labels so far, and more are appended.

The start of an output depends only on the seed and on the position of its label. So a network that has seen some labels
is the same whether or not more labels follow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kcm.kan import KAN, MLP, KANLinear, RandomReLU
from kcm.kan.mlp import drawn_linear


def output_names(network: nn.Module) -> list[str]:
    """Names of a network's tensors with one row per label."""
    prefix = f"layers.{len(network.layers) - 1}." if isinstance(network, KAN | MLP) else ""
    return [prefix + name for name in _rows(_last_layer(network))]


def resize_outputs(network: nn.Module, num_labels: int) -> None:
    """Append outputs of zeros, or drop the last ones."""
    layer = _last_layer(network)
    for name, tensor in _rows(layer).items():
        sized = resized(tensor.detach(), num_labels)
        setattr(layer, name, nn.Parameter(sized) if isinstance(tensor, nn.Parameter) else sized)
    if isinstance(layer, KANLinear | nn.Linear):
        layer.out_features = num_labels
    if isinstance(network, MLP):
        network.widths = (*network.widths[:-1], num_labels)


@torch.no_grad()
def start_outputs(network: nn.Module, labels: Iterable[int], seed: int, *, zero: bool) -> None:
    """Set the outputs of these labels to their start; to zero if `zero`."""
    layer = _last_layer(network)
    for label in labels:
        fresh = _draw(layer, torch.Generator().manual_seed(_output_seed(seed, label)))
        for name, tensor in _rows(layer).items():
            tensor[label] = 0.0 if zero else fresh[name][0]


def resized(tensor: Tensor, count: int, fill: float = 0.0) -> Tensor:
    """The first `count` rows of a tensor; if it has fewer, rows of `fill` are appended."""
    num_missing = max(0, count - len(tensor))
    return torch.cat([tensor[:count], tensor.new_full((num_missing, *tensor.shape[1:]), fill)])


def _last_layer(network: nn.Module) -> nn.Module:
    return list(network.layers)[-1] if isinstance(network, KAN | MLP) else network


def _rows(layer: nn.Module) -> dict[str, Tensor]:
    """The tensors of a last layer with one row per label."""
    names = ("weight", "bias", "offset")
    return {name: tensor for name in names if (tensor := getattr(layer, name, None)) is not None}


def _draw(layer: nn.Module, generator: torch.Generator) -> dict[str, Tensor]:
    """The tensors of a layer like this one, but with a single output."""
    if isinstance(layer, KANLinear):
        return layer.drawn(1, generator).state_dict()
    if isinstance(layer, RandomReLU):
        return {"weight": layer.drawn_weight(1, layer.weight.shape[1], generator), "offset": torch.zeros(1)}
    assert isinstance(layer, nn.Linear)
    return drawn_linear(layer.in_features, 1, generator).state_dict()


def _output_seed(seed: int, label: int) -> int:
    digest = hashlib.blake2b(f"{seed}\0output\0{label}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
