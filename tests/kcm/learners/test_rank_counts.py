"""Workers may be one, two or four, and come and go between checkpoints, without changing what is learned."""

import copy
import functools
from typing import Any

import pytest
import torch

from examples.learners.der import DerConfig
from examples.learners.ewc import EwcConfig
from examples.learners.lwf import LwfConfig
from examples.learners.si import SiConfig
from kcm.learners import LearnerConfig
from kcm.learners.ranks import Ranks
from kcm.learners.replay import ReplayConfig
from kcm.learners.training.sequence import SequenceTrainer

REPLAY = ReplayConfig(memory=31, batch_size=18)
LEARNERS: list[LearnerConfig] = [REPLAY, DerConfig(memory=31, batch_size=18), LwfConfig(), EwcConfig(), SiConfig()]
State = dict[str, Any]


def gradients_of_an_epoch(trainer: SequenceTrainer) -> list[torch.Tensor]:
    """The summed gradient of every step of one epoch of each task, what is replayed included, all at the same weights.

    That every rank takes the same next step from them is the other test's promise.
    """
    trainer.train = trainer.train.model_copy(update={"learning_rate": 1e-30})
    found = []
    while not trainer.done:
        trainer.step()
        found.append(torch.cat([parameter.grad.reshape(-1) for parameter in trainer.collaborator.parameters()]))
    return found


def test_gradients_at_a_fixed_global_batch_agree_to_1e_5(make_trainer, uneven, on_ranks) -> None:
    """Promise: how many workers share a step changes its gradient by no more than 1e-5 of its size.

    Steps of 50 leave a last one of 17 rows, which four ranks cannot share out equally.
    """
    make = functools.partial(make_trainer, uneven, REPLAY, epochs=1)
    expected = gradients_of_an_epoch(make())
    assert len(expected) == 13  # of 6, 6 and 1 steps
    for world_size in (2, 4):
        found = on_ranks(world_size, lambda ranks: gradients_of_an_epoch(make(ranks=ranks)))
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_a_run_goes_on_with_another_number_of_ranks(make_trainer, uneven, on_ranks) -> None:
    """Promise: workers may come and go between checkpoints; the memory is the same, and so is the accuracy matrix."""

    def continued(states: list[State | None], steps: int, ranks: Ranks) -> list[State]:
        trainers = [make_trainer(uneven, learner, epochs=2, ranks=ranks) for learner in LEARNERS]
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
        assert ours["position"] == [3, 0, 26]
        assert ours["learner"].get("memory", {}).get("ids") == theirs["learner"].get("memory", {}).get("ids")
        assert ours["accuracy"] == theirs["accuracy"]
        for name, tensor in theirs["collaborator"].items():
            torch.testing.assert_close(ours["collaborator"][name], tensor, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("batch_size", [600, 3])
def test_ranks_of_large_tasks_sum_to_one_gradient(make_trainer, large_tasks, on_ranks, batch_size) -> None:
    """Promise: of a task larger than a window, too, the number of workers changes no gradient by more than 1e-5.

    Steps of three rows leave ranks without a row of their own.
    """
    tasks = large_tasks[:1]

    def gradients(ranks: Ranks) -> list[torch.Tensor]:
        trainer = make_trainer(tasks, REPLAY, epochs=1, window=4, ranks=ranks)
        trainer.train = trainer.train.model_copy(update={"learning_rate": 1e-30, "batch_size": batch_size})
        trainer.load_state_dict(trainer.state_dict())  # with steps of this size
        found = []
        while not trainer.done and len(found) < 40:
            trainer.step()
            found.append(torch.cat([parameter.grad.reshape(-1) for parameter in trainer.collaborator.parameters()]))
        return found

    expected = gradients(Ranks())
    assert len(expected) == (9 if batch_size == 600 else 40)
    for world_size in (3, 6):
        for ours, theirs in zip(on_ranks(world_size, gradients), expected, strict=True):
            assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_large_tasks_are_learned_alike_by_one_rank_and_by_three(make_trainer, large_tasks, on_ranks) -> None:
    """Promise: networks, accuracy and memory do not depend on who read which rows."""
    make = functools.partial(make_trainer, large_tasks, ReplayConfig(memory=40, batch_size=64), epochs=1, window=4)

    def learned(ranks: Ranks) -> State:
        trainer = make(ranks=ranks)
        trainer.run()
        return trainer.state_dict()

    alone, together = learned(Ranks()), on_ranks(3, learned)
    assert together["learner"]["memory"]["ids"] == alone["learner"]["memory"]["ids"]
    assert together["position"] == alone["position"]
    for name, tensor in alone["collaborator"].items():
        torch.testing.assert_close(together["collaborator"][name], tensor, atol=2e-4, rtol=1e-3)
    for ours, theirs in zip(together["accuracy"]["small"], alone["accuracy"]["small"], strict=True):
        assert ours == pytest.approx(theirs, abs=0.01)


def test_large_task_resumed_in_a_window_ends_equally(make_trainer, large_tasks) -> None:
    """Promise: a large task resumed within a window ends like an undisturbed one."""
    make = functools.partial(make_trainer, large_tasks[:1], REPLAY, epochs=1, window=4)
    undisturbed, states = make(), {}
    while not undisturbed.done:
        if undisturbed.position.total in (7, 81, 82, 83, 100):  # windows end after 4,096 or 3,252 rows
            states[undisturbed.position.total] = copy.deepcopy(undisturbed.state_dict())
        undisturbed.step()
    assert len(states) == 5
    for state in states.values():
        resumed = make()
        resumed.load_state_dict(state)
        resumed.run()
        assert resumed.accuracy == undisturbed.accuracy
        for name, tensor in undisturbed.collaborator.state_dict().items():
            assert torch.equal(resumed.collaborator.state_dict()[name], tensor)
