"""Networks that answer as fast as a KAN, or learn in its CPU time: their widths, measured once and kept on disk.

A measurement differs from run to run, so the first one is used from then on. What is compared takes turns, so that a
busy machine slows both.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kcm.collaborator.collaborator import Collaborator, NetworkConfig, build_network
from kcm.collaborator.distill import DistillConfig
from kcm.errors import ConfigError
from kcm.kan import MLP
from kcm.learners.analytic import designs
from kcm.learners.training.trainer import Trainer

from .cell import canonical
from .data import Stream
from .settings import Setting

_BATCH, _LATENCY_ROUNDS, _LATENCY_PRECISION = 64, 15, 1.03
_STEPS, _CPU_ROUNDS, _CPU_PRECISION = 8, 7, 0.02
_GROWTH = 2.5  # CPU time goes with the square of the width while rows are summed up, with its cube while it is solved


@dataclass(frozen=True)
class EqualCpu:
    """The width of a random ReLU layer, and its CPU seconds over those of the KAN."""

    width: int
    ratio: float


def width_of_equal_latency(network: NetworkConfig, in_features: int, num_labels: int, folder: Path) -> int:
    """Width of the MLP's hidden layers at which a batch of 64 takes the time of the KAN on this CPU."""

    def measure() -> dict[str, Any]:
        kan = build_network(in_features, num_labels, network, "kan", seed=0)
        return {"mlp_width": _bisected(kan, in_features, num_labels, depth=max(1, len(network.hidden)))}

    shape = [network.model_dump(mode="json"), in_features, num_labels]
    return int(_measured_once(shape, folder, measure)["mlp_width"])


def units_of_equal_cpu(setting: Setting, stream: Stream, folder: Path) -> EqualCpu:
    """So many random ReLU units that to learn a task and to answer the scored rows takes the CPU time of the KAN.

    Raises ConfigError for a learner that has no closed form, whose units are no control of a KAN.
    """
    if not setting.learner.closed_form:
        raise ConfigError(
            f"learner {setting.learner.name!r} has no closed form, and match = 'cpu' is for random units in one",
            where="match",
            hint="Choose match: latency, or the learner analytic",
        )

    def measure() -> dict[str, Any]:
        guess = Collaborator(stream.in_features, stream.num_labels, setting.network, "kan", seed=0)
        return asdict(search(lambda width: _cpu_ratio(width, setting, stream), designs(guess)[0].num_inputs))

    shape = [setting.model_dump(mode="json"), stream.in_features, stream.num_labels]
    return EqualCpu(**_measured_once(shape, folder, measure))


def with_units(network: NetworkConfig, width: int) -> NetworkConfig:
    """The network with `width` random ReLU units in place of its curves."""
    return network.model_copy(update={"basis": "relu", "mixing": width})


def search(ratio_at: Callable[[int], float], width: int) -> EqualCpu:
    """The width at which `ratio_at` is 1 within two percent, from a first guess; else the nearest that was tried."""
    tried: list[EqualCpu] = []
    for _ in range(_STEPS):
        tried.append(EqualCpu(width, ratio_at(width)))
        if abs(tried[-1].ratio - 1) <= _CPU_PRECISION:
            break
        width = max(1, round(width * tried[-1].ratio ** (-1 / _GROWTH)))
    return min(tried, key=lambda measurement: abs(measurement.ratio - 1))


def _measured_once(shape: list[Any], folder: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    path = folder / f"{hashlib.sha256(canonical([*shape, torch.get_num_threads()])).hexdigest()[:16]}.json"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(measure()), encoding="utf-8")
    measured: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return measured


def _bisected(kan: nn.Module, in_features: int, num_labels: int, depth: int) -> int:
    """Bisect the width on a logarithmic scale."""
    low, high = 1.0, 65536.0
    while high / low > _LATENCY_PRECISION:
        middle = (low * high) ** 0.5
        mlp = MLP([in_features, *[round(middle)] * depth, num_labels])
        if _latency_ratio(mlp, kan, torch.randn(_BATCH, in_features)) < 1:
            low = middle
        else:
            high = middle
    return round(low)


@torch.inference_mode()
def _latency_ratio(first: nn.Module, second: nn.Module, x: torch.Tensor) -> float:
    return statistics.median(_latency(first, x) / _latency(second, x) for _ in range(_LATENCY_ROUNDS))


def _latency(module: nn.Module, x: torch.Tensor) -> float:
    started = time.perf_counter()
    for _ in range(3):
        module(x)
    return time.perf_counter() - started


def _cpu_ratio(width: int, setting: Setting, stream: Stream) -> float:
    units = setting.model_copy(update={"network": with_units(setting.network, width)})
    return statistics.median(_cpu_seconds(units, stream) / _cpu_seconds(setting, stream) for _ in range(_CPU_ROUNDS))


def _cpu_seconds(setting: Setting, stream: Stream) -> float:
    """CPU seconds to learn the first task and to answer the scored rows of all tasks."""
    collaborator = Collaborator(stream.in_features, stream.num_labels, setting.network, "kan", seed=0)
    learner = setting.learner.build(0)
    trainer = Trainer(collaborator, learner, stream.tasks[:1], setting.train, DistillConfig(), seed=0)
    scored = [task.take("test", torch.arange(task.num_rows("test"))).features for task in stream.tasks]
    started = time.process_time()
    trainer.run()
    with torch.inference_mode():
        for features_ND in scored:
            collaborator(features_ND)
    return time.process_time() - started
