"""The MLP that answers as fast as a KAN: its width, measured once on this machine and kept."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from kcm.collaborator.collaborator import NetworkConfig, build_network
from kcm.kan import KAN, MLP
from kcm.study.cell import canonical

_BATCH, _ROUNDS, _PRECISION = 64, 15, 1.03


def width_of_equal_latency(network: NetworkConfig, in_features: int, num_labels: int, folder: Path) -> int:
    """Width of the MLP's hidden layers at which a batch of 64 takes the time of the KAN's serving form on this CPU.

    A measurement differs from run to run, so the first one is kept in `folder` and used from then on.
    """
    shape: list[int | str] = [
        in_features,
        *network.hidden,
        num_labels,
        network.grid_size,
        network.spline_order,
        torch.get_num_threads(),
    ]
    if network.basis != "spline":
        shape += [network.basis, network.mixing]
    path = folder / f"{hashlib.sha256(canonical(shape)).hexdigest()[:16]}.json"
    if path.is_file():
        return int(json.loads(path.read_text(encoding="utf-8"))["mlp_width"])
    kan = build_network(in_features, num_labels, network, "kan", seed=0)
    served = kan.export() if isinstance(kan, KAN) else kan
    width = _search(served, [in_features, num_labels], depth=max(1, len(network.hidden)))
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"mlp_width": width, "shape": shape}), encoding="utf-8")
    return width


def _search(kan: nn.Module, ends: list[int], depth: int) -> int:
    """Bisect the width on a logarithmic scale; KAN and MLP take turns, so that a busy machine slows both."""
    low, high = 1.0, 65536.0
    while high / low > _PRECISION:
        middle = (low * high) ** 0.5
        mlp = MLP([ends[0], *[round(middle)] * depth, ends[1]])
        if _times_slower(mlp, kan, torch.randn(_BATCH, ends[0])) < 1:
            low = middle
        else:
            high = middle
    return round(low)


@torch.inference_mode()
def _times_slower(first: nn.Module, second: nn.Module, x: torch.Tensor) -> float:
    return statistics.median(_seconds(first, x) / _seconds(second, x) for _ in range(_ROUNDS))


def _seconds(module: nn.Module, x: torch.Tensor) -> float:
    started = time.perf_counter()
    for _ in range(3):
        module(x)
    return time.perf_counter() - started
