"""Tasks made of other tasks, all rows of some tasks, and the trainer of tasks."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from kcm.collaborator.collaborator import Collaborator, NetworkConfig, NetworkKind
from kcm.collaborator.distill import DistillConfig
from kcm.learners import LearnerConfig
from kcm.learners.base import Batch, joined
from kcm.learners.ranks import Ranks
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.sequence import SequenceTrainer
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import trainer_of

Rows = tuple[list[str], Batch]  # with their ids


def task_of(name: str, train: Rows, test: Rows) -> TensorRows:
    return TensorRows(name, {"train": train, "test": test})


def rows_of(tasks: Sequence[TensorRows], split: str) -> Batch:
    return joined(task.take(split, torch.arange(task.num_rows(split))) for task in tasks)


def merged(tasks: Sequence[TensorRows]) -> TensorRows:
    """All rows of some tasks as one."""

    def both(split: str) -> Rows:
        return [row_id for task in tasks for row_id in task.ids(split)], rows_of(tasks, split)

    return task_of("all", both("train"), both("test"))


def changed(task: TensorRows, change: Callable[[str, Batch], Batch]) -> TensorRows:
    """The task with other rows under the same ids; `change` is given the split and its rows."""
    train, test = ((task.ids(split), change(split, rows_of([task], split))) for split in ("train", "test"))
    return task_of(task.name, train, test)


def part_of(task: TensorRows, name: str, train: Sequence[int] | Tensor, num_test: int | None = None) -> TensorRows:
    """The task with its train rows at some positions, and its first test rows, or all of them."""

    def chosen(split: str, positions: Tensor) -> Rows:
        return [task.ids(split)[position] for position in positions], task.take(split, positions)

    num_test = task.num_rows("test") if num_test is None else num_test
    return task_of(name, chosen("train", torch.as_tensor(train)), chosen("test", torch.arange(num_test)))


def made_trainer(
    tasks: Sequence[TensorRows],
    learner: LearnerConfig,
    network: NetworkConfig,
    *,
    kind: NetworkKind = "kan",
    train: TrainConfig | None = None,
    distill: DistillConfig | None = None,
    seed: int = 0,
    ranks: Ranks | None = None,
    num_labels: int = 10,
    num_words: int = 0,
) -> SequenceTrainer:
    """A trainer of networks of 64 inputs."""
    collaborator = Collaborator(64, num_labels, network, kind, seed, num_words=num_words)
    settings = train or TrainConfig(), distill or DistillConfig()
    return trainer_of(collaborator, learner.build(seed), tasks, *settings, seed=seed, ranks=ranks)


def learned(trainer: SequenceTrainer) -> dict[str, Any]:
    """The state after all tasks."""
    trainer.run()
    return trainer.state_dict()


def solved(trainer: SequenceTrainer, features_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Judge and small logits of a closed form's solution in networks of float64."""
    precise = copy.deepcopy(trainer.collaborator).double()
    trainer.learner.solve(precise, Ranks())
    with torch.no_grad():
        return precise(features_ND.double())


def assert_close(ours: Any, theirs: Any, **tolerance: float) -> None:
    """States are equal up to a tolerance, tensor by tensor."""
    if isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(ours, theirs, **tolerance, equal_nan=True)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert_close(ours[key], value, **tolerance)
    else:
        assert ours == theirs
