"""A training by small steps takes no worker that would slow it down, and says so."""

from types import SimpleNamespace
from typing import Any

import pytest

from kcm.config import parse_config
from pipelines.cluster.config import ClusterConfig
from pipelines.store.sequence import Names
from pipelines.training.num_workers import StepSize, step_sizes, useful_workers
from pipelines.training.worker import TrainerConfig, TrainerPlan

SMALL, LARGE = StepSize(num_rows=64, num_parameters=9_500), StepSize(num_rows=8192, num_parameters=112_000)


def test_small_steps_use_one_worker_and_say_so() -> None:
    """Promise: small steps take one worker and it is said before they start."""
    workers, line = useful_workers([SMALL], ClusterConfig(num_workers=3))
    assert workers == 1
    assert line is not None
    assert line.startswith("train: 3 workers would be slower than 1, using 1")


def test_large_steps_take_all_workers_and_nothing_is_said() -> None:
    assert useful_workers([LARGE], ClusterConfig(num_workers=4)) == (4, None)


def test_what_most_of_the_time_goes_into_decides() -> None:
    assert useful_workers([SMALL, LARGE], ClusterConfig(num_workers=4)) == (4, None)


@pytest.mark.parametrize(("given", "taken"), [((2, 2), 2), ((2, 8), 2), ((1, 8), 1)])
def test_a_pair_says_how_many_are_taken_at_least(given: tuple[int, int], taken: int) -> None:
    assert useful_workers([SMALL], ClusterConfig(num_workers=given))[0] == taken


def test_a_pair_stays_one_up_to_the_most_that_is_of_use() -> None:
    (fewest, most), line = useful_workers([LARGE], ClusterConfig(num_workers=(2, 400)))  # type: ignore[misc]
    assert fewest == 2 < most < 400
    assert line is not None


@pytest.mark.parametrize(("steps", "use_gpu"), [([], False), ([SMALL], True)])
def test_what_was_not_measured_takes_what_is_configured(steps: list[StepSize], use_gpu: bool) -> None:
    cluster = ClusterConfig(num_workers=(1, 8), use_gpu=use_gpu)
    assert useful_workers(steps, cluster) == ((1, 8), None)


def test_steps_are_those_of_collaborators_that_are_not_solved() -> None:
    values = {
        "collaborators": ("kcm", "linear"),
        "network": {"hidden": []},
        "learner": {"name": "replay"},
        "train": {"batch_size": 96},
        "distill": {},
        "seed": 0,
    }
    features: Any = SimpleNamespace(dim=8, names=Names(("t",), ("no", "yes"), None))
    (step,) = step_sizes(TrainerPlan(parse_config(TrainerConfig, values), features, features))
    assert step == StepSize(96, 2 * 8 * 2 * 9)  # a curve of 9 numbers from each feature to each label, twice


def test_a_gradient_costs_two_workers_what_was_measured() -> None:
    nothing = StepSize(num_rows=0, num_parameters=100_000)
    assert nothing.seconds(1) == 0
    assert nothing.seconds(2) == pytest.approx(5.7e-3, rel=0.1)  # 402 kB between two hosts
