"""Random ReLU units that cost as much CPU time as a KAN in closed form: how many, measured once and kept."""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.errors import ConfigError
from kcm.learners.analytic import designs
from kcm.learners.training.trainer import Trainer
from kcm.study.cell import canonical
from kcm.study.settings import Setting
from kcm.study.stream import Stream

_STEPS, _ROUNDS, _PRECISION = 8, 7, 0.02
_GROWTH = 2.5  # CPU time goes with the square of the width while rows are summed up, with its cube while it is solved


@dataclass(frozen=True)
class EqualCpu:
    """The width of a random ReLU layer, and its CPU seconds over those of the KAN."""

    width: int
    ratio: float


def units_of_equal_cpu(setting: Setting, stream: Stream, folder: Path) -> EqualCpu:
    """So many random ReLU units that to learn a task and to answer the scored rows takes the CPU time of the KAN.

    CPU time of this process, for other work on the machine does not count as such; both take turns, for it slows them.
    A measurement differs from run to run, so the first one is kept in `folder` and used from then on. Raises
    ConfigError for a learner that has no closed form, whose units are no control of a KAN.
    """
    if not setting.learner.closed_form:
        raise ConfigError(
            f"learner {setting.learner.name!r} has no closed form, and match = 'cpu' is for random units in one",
            where="match",
            hint="Choose match: latency, or the learner analytic",
        )
    shape = [setting.model_dump(mode="json"), stream.in_features, stream.num_labels, torch.get_num_threads()]
    path = folder / f"{hashlib.sha256(canonical(shape)).hexdigest()[:16]}.json"
    if path.is_file():
        return EqualCpu(**json.loads(path.read_text(encoding="utf-8")))
    guess = Collaborator(stream.in_features, stream.num_labels, setting.network, "kan", seed=0)
    found = search(lambda width: times_slower(width, setting, stream), designs(guess)[0].num_inputs)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return found


def with_units(network: NetworkConfig, width: int) -> NetworkConfig:
    """The network with `width` random ReLU units in place of its curves."""
    return network.model_copy(update={"basis": "relu", "mixing": width})


def search(ratio_at: Callable[[int], float], width: int) -> EqualCpu:
    """The width at which `ratio_at` is 1 within two percent, from a first guess; else the nearest that was tried."""
    tried: list[EqualCpu] = []
    for _ in range(_STEPS):
        tried.append(EqualCpu(width, ratio_at(width)))
        if abs(tried[-1].ratio - 1) <= _PRECISION:
            break
        width = max(1, round(width * tried[-1].ratio ** (-1 / _GROWTH)))
    return min(tried, key=lambda each: abs(each.ratio - 1))


def times_slower(width: int, setting: Setting, stream: Stream) -> float:
    """CPU time of random units over that of the KAN: the median of rounds in which each has its turn."""
    units = setting.model_copy(update={"network": with_units(setting.network, width)})
    return statistics.median(_seconds(units, stream) / _seconds(setting, stream) for _ in range(_ROUNDS))


def _seconds(setting: Setting, stream: Stream) -> float:
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
