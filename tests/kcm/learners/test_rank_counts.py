"""One, two and four processes of torch.distributed compute the same gradients and remember the same rows.

The batches are uneven on purpose: 267 rows in steps of 50 leave 17, which four ranks cannot share out equally, and the
last task has fewer rows than there are ranks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from kcm.collaborator import Collaborator, NetworkConfig
from kcm.distill import DistillConfig
from kcm.learners import ReplayConfig
from kcm.learners.ranks import Ranks
from kcm.learners.stream import TensorRows
from kcm.learners.walk import TrainConfig, Walk

Work = Callable[[Walk], Any]


@pytest.fixture
def tasks(digits) -> list[TensorRows]:
    def first(split: str, count: int):
        return digits[2].ids(split)[:count], digits[2].take(split, torch.arange(count))

    return [*digits[:2], TensorRows("tiny", {"train": first("train", 3), "test": first("test", 5)})]


def make_walk(tasks: list[TensorRows]) -> Walk:
    collaborator = Collaborator(64, 10, NetworkConfig(hidden=(8,), grid_size=3), "kan", seed=0)
    train = TrainConfig(num_epochs=2, batch_size=50, learning_rate=1e-2)
    learner = ReplayConfig(memory=31, batch_size=18).build(0)
    return Walk(collaborator, learner, tasks, train, DistillConfig(), seed=0, ranks=Ranks.current())


def _rank(rank: int, world_size: int, tasks: list[TensorRows], work: Work, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    outcome = work(make_walk(tasks))
    if rank == 0:
        torch.save(outcome, f"{folder}/outcome.pt")
    distributed.destroy_process_group()


def on_ranks(world_size: int, tasks: list[TensorRows], work: Work) -> Any:
    """What `work` gives on rank 0 of so many processes, each of which does it on a walk of its own."""
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(target=_rank, args=(rank, world_size, tasks, work, folder)) for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
            assert process.exitcode == 0
        return torch.load(Path(folder) / "outcome.pt", weights_only=True)


def gradients_of_an_epoch(walk: Walk) -> list[torch.Tensor]:
    """The summed gradient of every step of each task's first epoch, all at the initial weights."""
    found = []
    for task in range(len(walk.tasks)):
        walk.position.task = task
        walk._begin_task()
        for step in range(walk._steps_per_epoch):
            walk.position.step = step
            walk.collaborator.zero_grad()
            walk._loss().backward()
            parts = [parameter.grad for parameter in walk.collaborator.parameters()]
            walk.ranks.sum_(parts)
            found.append(torch.cat([part.reshape(-1) for part in parts]))
    return found


def test_gradients_at_a_fixed_global_batch_agree_to_1e_5(tasks) -> None:
    """Promise: how many workers share a step changes its gradient by no more than 1e-5 of its size."""
    expected = gradients_of_an_epoch(make_walk(tasks))
    assert len(expected) == 13  # of 6, 6 and 1 steps
    for world_size in (2, 4):
        for ours, theirs in zip(on_ranks(world_size, tasks, gradients_of_an_epoch), expected, strict=True):
            assert (ours - theirs).norm() <= 1e-5 * theirs.norm()


def test_a_walk_goes_on_with_another_number_of_ranks(tasks) -> None:
    """Promise: workers may come and go between checkpoints; the memory is the same, and so is the accuracy matrix."""
    undisturbed = make_walk(tasks)
    undisturbed.run()
    state: dict[str, Any] | None = None
    for world_size, steps in ((2, 9), (1, 7), (4, 100)):

        def some_steps(walk: Walk, state: dict[str, Any] | None = state, steps: int = steps) -> dict[str, Any]:
            if state:
                walk.load_state_dict(state)
            while steps and not walk.done:
                walk.step()
                steps -= 1
            return walk.state_dict()

        state = on_ranks(world_size, tasks, some_steps)
    assert state
    assert state["learner"]["memory"]["ids"] == [row.id for row in undisturbed.learner.memory_rows()]
    assert state["accuracy"] == undisturbed.accuracy
    for name, tensor in undisturbed.collaborator.state_dict().items():
        torch.testing.assert_close(state["collaborator"][name], tensor, atol=1e-4, rtol=1e-3)
