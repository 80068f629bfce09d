"""What an added task costs to train, beside all tasks anew: the production trainer on made features.

Shapes: N rows, D features, C labels.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners import Batch, ReplayConfig
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import Trainer

NUM_TASKS, LABELS, DIM = 10, 15, 384
NUM_UPDATES = 100  # of one label list
ROWS = {"train": 600, "test": 150}
EPOCHS = 5


def growth_rows() -> list[tuple[str, str, str, str]]:
    """The rows of the table."""
    torch.set_num_threads(1)
    tasks = [_task(number, NUM_TASKS) for number in range(NUM_TASKS)]
    state = _learned([_task(number, NUM_TASKS - 1) for number in range(NUM_TASKS - 1)])
    added, added_s = _timed(tasks, state)
    anew, anew_s = _timed(tasks, None)
    same = all(torch.equal(one, two) for one, two in zip(_weights(added), _weights(anew), strict=True))
    shared = [_task(number, 1, first_label=0) for number in range(NUM_UPDATES + 1)]
    (early_s, early_test_s), (late_s, late_test_s) = (_added(shared[: n + 1]) for n in (1, NUM_UPDATES))
    return [
        (
            f"CPU of training a task after {NUM_UPDATES} updates, after one",
            "the same",
            "",
            f"{late_s / early_s:.2f}: {late_s:.2f} s, {early_s:.2f} s;"
            f" and {late_test_s:.2f} s, {early_test_s:.2f} s for the test rows of all tasks so far",
        ),
        (
            f"CPU of training an added task, of all {NUM_TASKS} anew",
            "0.2",
            "0.1",
            f"{added_s / anew_s:.2f}: {added_s:.1f} s of {anew_s:.1f} s; {'the same' if same else 'other'} networks",
        ),
    ]


def _learned(tasks: Sequence[TensorRows]) -> dict[str, object]:
    """The state of a trainer that has learned the tasks."""
    trainer = _trainer(tasks)
    trainer.run()
    return copy.deepcopy(trainer.state_dict())


def _added(tasks: Sequence[TensorRows]) -> tuple[float, float]:
    """Seconds of the CPU for training the last task, and for the accuracy on the test rows of all of them."""
    trainer, together_s = _timed(tasks, _learned(tasks[:-1]))
    started = time.process_time()
    trainer.evaluate(len(tasks))
    test_s = time.process_time() - started
    return together_s - test_s, test_s


def _timed(tasks: Sequence[TensorRows], state: dict[str, object] | None) -> tuple[Trainer, float]:
    """A finished trainer, and the seconds of the CPU that it took from its construction on."""
    started = time.process_time()
    trainer = _trainer(tasks)
    if state is not None:
        trainer.load_state_dict(state)
    trainer.run()
    return trainer, time.process_time() - started


def _trainer(tasks: Sequence[TensorRows]) -> Trainer:
    collaborator = Collaborator(
        DIM, tasks[0].read("train", 0, 1).large_probabilities.shape[1], NetworkConfig(), "kan", seed=0
    )
    train = TrainConfig(num_epochs=EPOCHS, mask_unseen=True)
    return Trainer(collaborator, ReplayConfig().build(0), list(tasks), train, DistillConfig(), seed=0)


def _weights(trainer: Trainer) -> list[torch.Tensor]:
    return list(trainer.collaborator.state_dict().values())


def _task(number: int, num_tasks: int, first_label: int | None = None) -> TensorRows:
    """Rows of a task around a centre for each of its labels, its own unless `first_label` is given.

    The large model is right on nine of ten, and knows the labels of `num_tasks` tasks.
    """
    first_label = LABELS * number if first_label is None else first_label
    generator = torch.Generator().manual_seed(number)
    centres_CD = torch.randn(LABELS, DIM, generator=generator)
    splits = {}
    for split, count in ROWS.items():
        labels_N = torch.randint(0, LABELS, (count,), generator=generator)
        features_ND = F.normalize(centres_CD[labels_N] + torch.randn(count, DIM, generator=generator))
        said_N = torch.where(torch.rand(count, generator=generator) < 0.9, labels_N, (labels_N + 1) % LABELS)
        large_NC = F.one_hot(said_N + first_label, LABELS * num_tasks).float()
        batch = Batch(features_ND, labels_N + first_label, large_NC, torch.ones(count))
        splits[split] = [f"{number}/{split}/{row}" for row in range(count)], batch
    return TensorRows(f"task-{number}", splits)
