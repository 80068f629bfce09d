"""Learning without forgetting holds the networks to what the last task's networks said of the labels known then."""

import pytest
import torch
from torch.nn import functional as F

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners import Batch, LearnedTask, Scored
from kcm.learners.bounds import FinetuneConfig
from kcm.learners.lwf import LwfConfig
from kcm.learners.ranks import Ranks


def scored(collaborator: Collaborator, features: torch.Tensor, losses: torch.Tensor) -> Scored:
    labels = torch.zeros(len(features), dtype=torch.int64)
    batch = Batch(features, labels, torch.full((len(features), 4), torch.nan), torch.ones(len(features)))
    logits = torch.stack(collaborator(features)[: len(collaborator.networks)])
    return Scored(batch, collaborator, logits, losses)


@pytest.mark.parametrize("shared", [False, True])
def test_the_added_loss_is_a_divergence_over_the_old_labels(shared) -> None:
    collaborator = Collaborator(5, 4, NetworkConfig(hidden=(3,), shared=shared), "kan", seed=0)
    learner, seen = LwfConfig(strength=0.7, temperature=2.0).build(0), torch.tensor([True, True, True, False])
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    losses = torch.arange(6.0)
    assert learner.row_loss(scored(collaborator, features, losses)) is losses  # the first task has no teacher

    old = [network(collaborator.normalizer(features)).detach() for network in collaborator.networks.values()]
    every = torch.ones(4, dtype=torch.bool)
    learner.end_task(
        LearnedTask(collaborator, [], 6, seen_C=seen, active_C=every, ranks=Ranks(), distill=DistillConfig())
    )
    with torch.no_grad():
        for parameter in collaborator.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    expected = losses.clone()
    for network, before in zip(collaborator.networks.values(), old, strict=True):
        now = network(collaborator.normalizer(features))
        teacher, student = (F.softmax(logits[:, :3].double() / 2.0, -1) for logits in (before, now))
        expected += (0.7 * 4.0 * (teacher * (teacher / student).log()).sum(-1)).float()
    torch.testing.assert_close(learner.row_loss(scored(collaborator, features, losses)), expected)


@pytest.mark.parametrize("kind", ["kan", "mlp"])
def test_old_tasks_are_still_distinguished_among_their_own_labels(make_trainer, digits, kind) -> None:
    # With its own two labels to choose from, as in task-incremental learning; the paper's setting.
    def first_tasks(learner) -> float:
        trainer = make_trainer(digits, learner, kind=kind, epochs=4, mask_unseen=True)
        trainer.run()
        return sum(_right_among_own_labels(trainer, task) for task in range(4)) / 4

    assert first_tasks(LwfConfig()) > first_tasks(FinetuneConfig()) + 0.05


def _right_among_own_labels(trainer, task: int) -> float:
    rows = trainer.tasks[task].take("test", torch.arange(trainer.tasks[task].num_rows("test")))
    _, small = trainer.collaborator(rows.features)
    own = small[:, 2 * task : 2 * task + 2].argmax(-1) + 2 * task
    return float((own == rows.labels).float().mean())


def test_remembered_rows_are_learned_and_taught_too(make_trainer, digits) -> None:
    def average(learner) -> float:
        trainer = make_trainer(digits, learner, epochs=6)
        trainer.run()
        return sum(trainer.accuracy["small"][-1]) / 5

    without, untaught, taught = (
        average(LwfConfig(memory=memory, strength=strength)) for memory, strength in ((0, 0.1), (100, 0), (100, 0.1))
    )
    assert untaught > without + 0.2
    assert taught > without + 0.2
    assert taught != untaught
