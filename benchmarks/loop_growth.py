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
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import TrainConfig, Trainer

NUM_TASKS, LABELS, DIM = 10, 15, 384
ROWS = {"train": 600, "test": 150}
EPOCHS = 5


def growth_rows() -> list[tuple[str, str, str, str]]:
    """The rows of the table."""
    torch.set_num_threads(1)
    tasks = [_task(number, NUM_TASKS) for number in range(NUM_TASKS)]
    before = _trainer([_task(number, NUM_TASKS - 1) for number in range(NUM_TASKS - 1)])
    before.run()
    state = copy.deepcopy(before.state_dict())
    added, added_s = _timed(tasks, state)
    anew, anew_s = _timed(tasks, None)
    same = all(torch.equal(one, two) for one, two in zip(_weights(added), _weights(anew), strict=True))
    return [
        (
            f"CPU of training an added task, of all {NUM_TASKS} anew",
            "0.2",
            "0.1",
            f"{added_s / anew_s:.2f}: {added_s:.1f} s of {anew_s:.1f} s; {'the same' if same else 'other'} networks",
        )
    ]


def _timed(tasks: Sequence[TensorRows], state: dict[str, object] | None) -> tuple[Trainer, float]:
    """A finished trainer, and the seconds of the CPU that it took from its construction on."""
    started = time.process_time()
    trainer = _trainer(tasks)
    if state is not None:
        trainer.load_state_dict(state)
    trainer.run()
    return trainer, time.process_time() - started


def _trainer(tasks: Sequence[TensorRows]) -> Trainer:
    num_labels = LABELS * len(tasks)
    collaborator = Collaborator(DIM, num_labels, NetworkConfig(), "kan", seed=0)
    train = TrainConfig(num_epochs=EPOCHS, mask_unseen=True)
    return Trainer(collaborator, ReplayConfig().build(0), list(tasks), train, DistillConfig(), seed=0)


def _weights(trainer: Trainer) -> list[torch.Tensor]:
    return list(trainer.collaborator.state_dict().values())


def _task(number: int, num_tasks: int) -> TensorRows:
    """Rows of a task's own labels, around a centre for each; the large model is right on nine of ten.

    It knows the labels of `num_tasks` tasks.
    """
    generator = torch.Generator().manual_seed(number)
    centres_CD = torch.randn(LABELS, DIM, generator=generator)
    splits = {}
    for split, count in ROWS.items():
        labels_N = torch.randint(0, LABELS, (count,), generator=generator)
        features_ND = F.normalize(centres_CD[labels_N] + torch.randn(count, DIM, generator=generator))
        said_N = torch.where(torch.rand(count, generator=generator) < 0.9, labels_N, (labels_N + 1) % LABELS)
        large_NC = F.one_hot(said_N + LABELS * number, LABELS * num_tasks).float()
        batch = Batch(features_ND, labels_N + LABELS * number, large_NC, torch.ones(count))
        splits[split] = [f"{number}/{split}/{row}" for row in range(count)], batch
    return TensorRows(f"task-{number}", splits)
