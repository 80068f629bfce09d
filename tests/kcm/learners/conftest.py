"""scikit-learn's digits, real, small and quick: as five tasks of two classes."""

import tempfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import distributed, multiprocessing

from kcm.collaborator.collaborator import NetworkConfig
from kcm.learners import Batch, LearnerConfig
from kcm.learners.ranks import Ranks
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.sequence import SequenceTrainer
from kcm.learners.training.stream import TensorRows
from tests.kcm.learners.tasks import made_trainer, part_of, task_of

NETWORK = NetworkConfig(hidden=(8,), grid_size=3)


@pytest.fixture(scope="session")
def digits() -> list[TensorRows]:
    features, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    features, labels = features[order].float(), labels[order]

    own = [(labels // 2 == task).nonzero()[:, 0] for task in range(5)]
    return [
        _cut(f"digits-{task}", [f"digit-{row}" for row in rows], features[rows], labels[rows], len(rows) * 3 // 4)
        for task, rows in enumerate(own)
    ]


def _cut(name: str, ids: list[str], features: torch.Tensor, labels: torch.Tensor, num_train: int) -> TensorRows:
    """A task of rows that no large model has answered, the first ones its train rows."""
    rows = Batch(features, labels, torch.full((len(ids), 10), torch.nan), torch.ones(len(ids)))
    train, test = torch.arange(len(ids)).tensor_split([num_train])
    return task_of(
        name,
        (ids[:num_train], rows.take(train, torch.ones(len(train)))),
        (ids[num_train:], rows.take(test, torch.ones(len(test)))),
    )


@pytest.fixture(scope="session")
def make_trainer() -> Callable[..., SequenceTrainer]:
    """A trainer of small networks over tasks of digits."""

    def make(
        tasks: list[TensorRows],
        learner: LearnerConfig,
        *,
        kind: str = "kan",
        epochs: int = 6,
        ranks: Ranks | None = None,
        network: NetworkConfig = NETWORK,
        **train: Any,
    ) -> SequenceTrainer:
        config = TrainConfig(num_epochs=epochs, batch_size=50, learning_rate=1e-2, **train)
        return made_trainer(tasks, learner, network, kind=kind, train=config, ranks=ranks)

    return make


@pytest.fixture
def uneven(digits: list[TensorRows]) -> list[TensorRows]:
    """Two tasks of 267 train rows, which few batch sizes divide, and one with fewer rows than there are ranks."""

    return [*digits[:2], part_of(digits[2], "tiny", range(3), 5)]


@pytest.fixture(scope="session")
def large_tasks() -> list[TensorRows]:
    """Two tasks of six blocks of rows, the last one short: of more than a window, where `train.window` is 4."""
    generator = torch.Generator().manual_seed(0)
    tasks = []
    for task in range(2):
        features = torch.randn(5500, 64, generator=generator)
        labels = features[:, 5 * task : 5 * task + 5].argmax(1) + 5 * task
        tasks.append(_cut(f"large-{task}", [f"{task}-{row}" for row in range(5500)], features, labels, 5300))
    return tasks


@pytest.fixture
def on_ranks() -> Callable[[int, Callable[[Ranks], Any]], Any]:
    """Does some work on so many processes of their own, joined by gloo; gives what it gives on rank 0."""

    def run(world_size: int, work: Callable[[Ranks], Any]) -> Any:
        with tempfile.TemporaryDirectory() as folder:

            def run_rank(rank: int) -> None:
                torch.set_num_threads(1)
                store = f"file://{folder}/store"
                distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
                outcome = work(Ranks.current())
                if rank == 0:
                    torch.save(outcome, f"{folder}/outcome.pt")
                distributed.destroy_process_group()

            context = multiprocessing.get_context("fork")
            processes = [context.Process(target=run_rank, args=(rank,)) for rank in range(world_size)]
            for process in processes:
                process.start()
            for process in processes:
                process.join(120)
                assert process.exitcode == 0
            return torch.load(f"{folder}/outcome.pt", weights_only=True)

    return run
