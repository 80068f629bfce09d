"""A walk is the same for any number of ranks and any interruption, and its learners differ as they should."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from kcm.collaborator import Collaborator, NetworkConfig
from kcm.distill import DistillConfig
from kcm.errors import ArtefactError, DataError
from kcm.learners import FinetuneConfig, JointConfig, LearnerConfig, ReplayConfig
from kcm.learners.ranks import Ranks
from kcm.learners.stream import TensorRows
from kcm.learners.walk import TrainConfig, Walk

NETWORK = NetworkConfig(hidden=(8,), grid_size=3)


def make_walk(tasks, learner: LearnerConfig, *, kind="kan", epochs=6, ranks=None, network=NETWORK) -> Walk:
    collaborator = Collaborator(64, 10, network, kind, seed=0)
    train = TrainConfig(num_epochs=epochs, batch_size=50, learning_rate=1e-2)
    return Walk(collaborator, learner.build(0), tasks, train, DistillConfig(), seed=0, ranks=ranks)


def final_accuracy(walk: Walk) -> float:
    walk.run()
    return float(np.mean(walk.accuracy["small"][-1]))


@pytest.mark.parametrize("kind", ["kan", "mlp"])
def test_joint_beats_replay_beats_finetuning(digits, kind) -> None:
    finetune, replay, joint = (
        final_accuracy(make_walk(digits, learner, kind=kind))
        for learner in (FinetuneConfig(), ReplayConfig(memory=60), JointConfig())
    )
    assert finetune < 0.35  # classes of the last task alone
    assert replay > finetune + 0.2
    assert joint > 0.9
    assert joint > replay


def test_replay_without_memory_is_finetuning(digits) -> None:
    without, finetune = make_walk(digits[:2], ReplayConfig(memory=0)), make_walk(digits[:2], FinetuneConfig())
    without.run()
    finetune.run()
    assert without.accuracy == finetune.accuracy
    for ours, theirs in zip(without.collaborator.parameters(), finetune.collaborator.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("learner", [FinetuneConfig(), ReplayConfig(memory=40, batch_size=17), JointConfig()])
@pytest.mark.parametrize("steps", [1, 13, 37])
def test_a_walk_resumed_at_any_step_ends_like_an_undisturbed_one(digits, learner, steps, tmp_path) -> None:
    undisturbed = make_walk(digits[:3], learner, epochs=3)
    undisturbed.run()
    first = make_walk(digits[:3], learner, epochs=3)
    for _ in range(steps):
        first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    resumed = make_walk(digits[:3], learner, epochs=3)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.run()
    assert resumed.accuracy == undisturbed.accuracy
    for ours, theirs in zip(resumed.collaborator.parameters(), undisturbed.collaborator.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def _run_rank(rank: int, world_size: int, tasks: list[TensorRows], learner: LearnerConfig, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    walk = make_walk(tasks, learner, epochs=2, ranks=Ranks.current())
    walk.run()
    if rank == 0:
        torch.save(walk.state_dict(), f"{folder}/state.pt")
    distributed.destroy_process_group()


def _trained(world_size: int, tasks: list[TensorRows], learner: LearnerConfig) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        run = functools.partial(_run_rank, world_size=world_size, tasks=tasks, learner=learner, folder=folder)
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=run, args=(rank,)) for rank in range(world_size)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        return torch.load(Path(folder) / "state.pt", weights_only=True)


def test_one_two_and_four_ranks_train_the_same_network_and_remember_the_same_rows(digits) -> None:
    # 267 rows in batches of 50 leave an uneven last batch; the tiny task has fewer rows than there are ranks.
    tiny = TensorRows("tiny", {"train": _first(digits[2], "train", 3), "test": _first(digits[2], "test", 5)})
    one, two, four = (_trained(n, [digits[0], digits[1], tiny], ReplayConfig(memory=31)) for n in (1, 2, 4))
    for other in (two, four):
        assert other["learner"]["memory"]["ids"] == one["learner"]["memory"]["ids"]
        for name, tensor in one["collaborator"].items():
            torch.testing.assert_close(other["collaborator"][name], tensor, atol=2e-4, rtol=1e-3)


def _first(task: TensorRows, split: str, count: int):
    return task.ids(split)[:count], task.take(split, torch.arange(count))


def test_gradients_of_one_step_do_not_depend_on_the_rank_count(digits) -> None:
    alone = make_walk(digits[:1], FinetuneConfig())
    alone._loss().backward()
    expected = [parameter.grad.clone() for parameter in alone.collaborator.parameters()]
    for world_size in (2, 3, 4, 7):
        walks = [make_walk(digits[:1], FinetuneConfig()) for _ in range(world_size)]
        for rank, walk in enumerate(walks):
            walk.ranks = Ranks(rank, world_size)
            walk._loss().backward()
        for position, gradient in enumerate(expected):
            total = sum(list(walk.collaborator.parameters())[position].grad for walk in walks)
            torch.testing.assert_close(total, gradient, atol=1e-6, rtol=1e-5)


def test_a_state_of_other_tasks_is_refused(digits) -> None:
    state = make_walk(digits[:2], FinetuneConfig()).state_dict()
    with pytest.raises(ArtefactError, match=r"digits-0.*digits-1"):
        make_walk(digits[1:3], FinetuneConfig()).load_state_dict(state)


def test_a_task_without_test_rows_is_refused(digits) -> None:
    empty = TensorRows("empty", {"train": _first(digits[0], "train", 3), "test": _first(digits[0], "test", 0)})
    with pytest.raises(DataError, match="empty"):
        make_walk([empty], FinetuneConfig())


def test_the_first_task_freezes_the_normaliser_even_when_networks_restart(digits) -> None:
    network = NETWORK.model_copy(update={"scaling": "first_task"})
    walk = make_walk(digits[:2], JointConfig(), epochs=1, network=network)
    mean = digits[0].take("train", torch.arange(digits[0].num_rows("train"))).features.mean(0)
    walk.run()
    torch.testing.assert_close(walk.collaborator.normalizer.mean, mean, atol=1e-4, rtol=1e-4)
