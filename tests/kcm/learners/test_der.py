"""DER++ replays labels and logits: the step's loss is the paper's, up to a factor that AdamW does not see."""

import pytest
import torch
from torch.nn import functional as F

from kcm.collaborator.collaborator import NetworkConfig
from kcm.learners.der import DerConfig
from kcm.learners.training.order import TrainOrder

LEARNER = DerConfig(memory=20, batch_size=7, alpha=0.3, beta=0.9)


def trained_into_the_third_task(make_trainer, digits, **options):
    trainer = make_trainer(digits[:3], LEARNER, epochs=1, **options)
    while trainer.position.task < 2:
        trainer.step()
    return trainer


@pytest.mark.parametrize("shared", [False, True])
def test_a_step_has_the_loss_of_the_paper(make_trainer, digits, shared) -> None:
    network = NetworkConfig(hidden=(8,), grid_size=3, shared=shared)
    trainer = trained_into_the_third_task(make_trainer, digits, network=network)
    trainer.distill = trainer.distill.model_copy(
        update={"judge_weight": 0.0}
    )  # the paper has one network and its labels
    task = trainer.tasks[2]
    (rows,) = TrainOrder([task.num_rows("train")], seed=0, task=2, epoch=0, window=trainer.train.window)
    stream = task.take("train", torch.from_numpy(rows.positions[:50]))
    for_logits, for_labels = (
        trainer.learner.draw(2 * trainer.position.total),
        trainer.learner.draw(2 * trainer.position.total + 1),
    )
    expected = 0.0
    for number, module in enumerate(trainer.collaborator.networks.values()):
        said = {
            name: module(trainer.collaborator.normalizer(rows.features))
            for name, rows in {"stream": stream, "logits": for_logits, "labels": for_labels}.items()
        }
        expected += F.cross_entropy(said["stream"], stream.labels)
        expected += 0.3 * F.mse_loss(said["logits"], for_logits.logits[:, number])
        expected += 0.9 * F.cross_entropy(said["labels"], for_labels.labels)
    parameters = list(trainer.collaborator.parameters())
    gradients = torch.autograd.grad(expected / (1 + 0.3 + 0.9), parameters)
    trainer.step()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_two_draws_of_a_step_differ_and_pass_through_the_whole_memory(make_trainer, digits) -> None:
    learner = trained_into_the_third_task(make_trainer, digits).learner
    draws = [tuple(learner.draw(number).features[:, 20].tolist()) for number in range(6)]
    assert len(set(draws)) == 6
    rows = torch.cat([learner.draw(number).features for number in range(20)])  # 20 draws of 7 are 7 passes over 20
    counts = torch.unique(rows, dim=0, return_counts=True)[1]
    assert counts.tolist() == [7] * 20


def test_a_row_keeps_what_the_networks_said_when_its_task_had_been_learned(make_trainer, digits) -> None:
    trainer = make_trainer(digits[:2], LEARNER, epochs=1)
    while not trainer.step():
        pass
    memory = trainer.learner.memory
    remembered, row_id = memory.rows, memory.ids[0]
    said = torch.stack(trainer.collaborator(remembered.features), 1)
    torch.testing.assert_close(remembered.logits, said.detach(), atol=1e-5, rtol=1e-5)
    while not trainer.done:
        trainer.step()
    assert torch.equal(memory.rows.logits[memory.ids.index(row_id)], remembered.logits[0])


def test_labels_unseen_when_a_row_was_remembered_are_not_held_to_it_under_masking(make_trainer, digits) -> None:
    trainer = trained_into_the_third_task(make_trainer, digits, mask_unseen=True)
    memory = trainer.learner.memory
    for task, logits in zip(memory.tasks, memory.rows.logits, strict=True):
        known = 2 * (task + 1)
        assert logits[:, :known].isfinite().all()
        assert logits[:, known:].isnan().all()
    trainer.step()
    assert all(p.grad.isfinite().all() and p.isfinite().all() for p in trainer.collaborator.parameters())
