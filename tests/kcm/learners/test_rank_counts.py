"""Workers may be one, two or four, and come and go between checkpoints, without changing what is learned."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from examples.learners.der import DerConfig
from examples.learners.ewc import EwcConfig
from examples.learners.lwf import LwfConfig
from examples.learners.si import SiConfig
from kcm.collaborator.collaborator import NetworkConfig
from kcm.learners import LearnerConfig
from kcm.learners.bounds import JointConfig
from kcm.learners.ranks import Ranks
from kcm.learners.replay import ReplayConfig
from kcm.learners.training.sequence import SequenceTrainer
from tests.kcm.learners.tasks import assert_close

REPLAY = ReplayConfig(memory=31, batch_size=18)
LEARNERS: list[LearnerConfig] = [
    JointConfig(),
    REPLAY,
    ReplayConfig(memory=31, batch_size=18, margin=2.0),
    DerConfig(memory=31, batch_size=18),
    LwfConfig(),
    EwcConfig(),
    EwcConfig(fisher="empirical", online=True, decay=0.9),
    SiConfig(),
]
ON_A_BASE = NetworkConfig(hidden=(), base="lda", zero_start=True)
State = dict[str, Any]


def gradients(make: Callable[..., SequenceTrainer], batch_size: int, ranks: Ranks) -> list[torch.Tensor]:
    """The summed gradients of the first steps, replayed rows included, all at the same weights."""
    trainer = make(ranks=ranks)
    trainer.train = trainer.train.model_copy(update={"learning_rate": 1e-30, "batch_size": batch_size})
    found = []
    while not trainer.done and len(found) < 40:
        trainer.step()
        found.append(torch.cat([parameter.grad.reshape(-1) for parameter in trainer.collaborator.parameters()]))
    return found


@pytest.mark.parametrize(
    ("tasks", "batch_size", "num_steps"),
    [("uneven", 50, 13), ("large_tasks", 600, 18), ("large_tasks", 3, 40)],
    ids=["uneven tasks", "more than a window", "fewer rows than ranks"],
)
def test_gradients_do_not_depend_on_the_number_of_ranks(
    make_trainer, on_ranks, request, tasks, batch_size, num_steps
) -> None:
    """Promise: the number of workers that share a step changes its gradient by no more than 1e-5 of its size.

    Steps of 50 leave a last one of 17 rows, which four ranks cannot share equally.
    """
    make = functools.partial(make_trainer, request.getfixturevalue(tasks), REPLAY, epochs=1, window=4)
    expected = gradients(make, batch_size, Ranks())
    assert len(expected) == num_steps
    for world_size in (2, 4):
        found = on_ranks(world_size, functools.partial(gradients, make, batch_size))
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_a_run_goes_on_with_another_number_of_ranks(make_trainer, uneven, on_ranks) -> None:
    """Promise: workers may come and go between checkpoints, without changing memory, state or accuracy matrix."""

    def continued(states: list[State | None], steps: int, ranks: Ranks) -> list[State]:
        make = functools.partial(make_trainer, uneven, epochs=2, ranks=ranks, network=ON_A_BASE)
        trainers = [make(learner) for learner in LEARNERS]
        for trainer, state in zip(trainers, states, strict=True):
            if state:
                trainer.load_state_dict(state)
            for _ in range(steps):
                if not trainer.done:
                    trainer.step()
        return [trainer.state_dict() for trainer in trainers]

    nothing: list[State | None] = [None] * len(LEARNERS)
    undisturbed = continued(nothing, 26, Ranks())
    states: list[Any] = nothing
    for world_size, steps in ((2, 9), (1, 7), (4, 10)):  # stops in the first task and in the second
        states = on_ranks(world_size, functools.partial(continued, states, steps))
    for ours, theirs in zip(states, undisturbed, strict=True):
        assert ours["position"] == theirs["position"]
        assert ours["learner"].get("memory", {}).get("ids") == theirs["learner"].get("memory", {}).get("ids")
        assert ours["accuracy"] == theirs["accuracy"]
        assert_close(ours["collaborator"], theirs["collaborator"], atol=2e-4, rtol=1e-3)
        assert_close(ours["learner"], theirs["learner"], atol=1e-3, rtol=1e-2)
