"""Rows without a label: their teachers teach, and nothing else of them is learned, remembered or measured."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from examples.learners.der import DerConfig
from examples.learners.ewc import EwcConfig
from examples.learners.lwf import LwfConfig
from examples.learners.si import SiConfig
from kcm.collaborator.collaborator import NetworkConfig
from kcm.collaborator.distill import DistillConfig, distillation_loss
from kcm.errors import DataError
from kcm.inputs.labels import UNLABELLED
from kcm.learners import Batch, LearnerConfig
from kcm.learners import answered as answered_rows
from kcm.learners.analytic import AnalyticConfig
from kcm.learners.bounds import FinetuneConfig
from kcm.learners.replay import Replay, ReplayConfig
from kcm.learners.slda import SldaConfig
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.sequence import SequenceTrainer
from kcm.learners.training.stream import TensorRows
from kcm.metrics.intervals import Units
from tests.kcm.learners.tasks import changed, learned, made_trainer, merged, part_of, rows_of

LEARNERS = [
    ReplayConfig(memory=40),
    DerConfig(memory=40),
    LwfConfig(memory=40),
    EwcConfig(fisher="empirical"),
    SiConfig(),
]
FLAT = NetworkConfig(hidden=(), grid_size=2)


def hidden(tasks: Sequence[TensorRows], *, keep: int) -> list[TensorRows]:
    """The tasks with the labels of all but every `keep`-th train row hidden, and a large model that knows them."""

    def hide(split: str, rows: Batch) -> Batch:
        taken = (torch.arange(len(rows)) % keep == 0) | (split == "test")
        known = F.one_hot(rows.labels, 10).float()
        return replace(rows, labels=torch.where(taken, rows.labels, UNLABELLED), large_probabilities=known)

    return [changed(task, hide) for task in tasks]


def blank(split: str, rows: Batch) -> Batch:
    """The rows with all train labels hidden."""
    return replace(rows, labels=torch.full_like(rows.labels, UNLABELLED)) if split == "train" else rows


def labelled_alone(tasks: Sequence[TensorRows]) -> list[TensorRows]:
    labels = [rows_of([task], "train").labels for task in tasks]
    return [
        part_of(task, task.name, (own != UNLABELLED).nonzero()[:, 0]) for task, own in zip(tasks, labels, strict=True)
    ]


def trained(
    tasks: Sequence[TensorRows], learner: LearnerConfig, distill: DistillConfig, *, epochs: int = 2, kind: str = "kan"
) -> SequenceTrainer:
    train = TrainConfig(num_epochs=epochs, batch_size=50, learning_rate=1e-2)
    trainer = made_trainer(tasks, learner, FLAT, kind=kind, train=train, distill=distill)
    trainer.run()
    return trainer


def test_such_a_row_costs_what_its_teachers_say_and_nothing_else(digits) -> None:
    tasks = hidden(digits[:1], keep=2)
    trainer = made_trainer(tasks, FinetuneConfig(), FLAT)
    batch = tasks[0].take("train", torch.tensor([0, 1, 2, 3]))
    scored = trainer.scored(batch, len(batch))
    judge_NC, small_NC = scored.logits_MNC
    seen_C = torch.arange(10) < 2  # the labels of the task
    taught_N = distillation_loss(judge_NC, small_NC, batch.large_probabilities, trainer.distill, seen_C)
    assert torch.equal(scored.label_loss_N[1::2], taught_N[1::2])
    assert (taught_N[1::2] > 0).all()
    assert (scored.label_loss_N[::2] > taught_N[::2]).all()


def test_large_model_teaches_unlabelled_rows(digits) -> None:
    """The judge learns from labels alone; the small model learns what the large model knows of the pool."""
    joint = hidden([merged(digits)], keep=40)
    silent, taught = DistillConfig(large_weight=0, judge_weight=0), DistillConfig(large_weight=1, judge_weight=0)
    alone, pooled = (trained(joint, FinetuneConfig(), distill, epochs=8) for distill in (silent, taught))
    np.testing.assert_allclose(alone.accuracy["judge"][-1], pooled.accuracy["judge"][-1], atol=0.02)
    assert pooled.accuracy["small"][-1][0] > alone.accuracy["small"][-1][0] + 0.1


def answered(tasks: Sequence[TensorRows], shift: int) -> list[TensorRows]:
    """The tasks with a large model that is right, or that many labels beside it."""

    def shifted(_: str, rows: Batch) -> Batch:
        return replace(rows, large_probabilities=rows.large_probabilities.roll(shift, 1))

    return [changed(task, shifted) for task in tasks]


def test_right_answers_are_to_a_closed_form_what_labels_are(digits, monkeypatch) -> None:
    monkeypatch.setattr(answered_rows, "WEIGHTS", (0.0, 1.0))
    known = [merged(digits)]
    taught, alone, joint = (
        trained(tasks, AnalyticConfig(), DistillConfig())
        for tasks in (hidden(known, keep=40), labelled_alone(hidden(known, keep=40)), known)
    )
    assert taught.learner.answered.weight == 1
    assert taught.accuracy["judge"] == joint.accuracy["judge"]
    for mine, other in zip(taught.collaborator.parameters(), joint.collaborator.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    assert joint.accuracy["judge"][0][0] > alone.accuracy["judge"][0][0] + 0.05


@pytest.mark.parametrize("learner", [AnalyticConfig(), SldaConfig()], ids=repr)
def test_wrong_answers_are_excluded_and_slda_uses_labels(digits, learner) -> None:
    tasks = hidden(digits[:2], keep=3)
    ours, theirs = (trained(rows, learner, DistillConfig()) for rows in (answered(tasks, 1), labelled_alone(tasks)))
    for mine, other in zip(ours.collaborator.parameters(), theirs.collaborator.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)


def test_answers_weigh_the_same_on_any_ranks_and_after_resume(digits, on_ranks, tmp_path) -> None:
    tasks = hidden(digits[:2], keep=20)

    begun = partial(made_trainer, tasks, AnalyticConfig(chunk_size=100), FLAT)
    one, three = (on_ranks(world_size, lambda ranks: learned(begun(ranks=ranks))) for world_size in (1, 3))
    first, resumed = begun(), begun()
    for _ in range(4):
        first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.run()
    assert one["learner"]["answered"]["weight"] > 0
    for other in (three, resumed.state_dict()):
        assert other["learner"]["answered"]["weight"] == one["learner"]["answered"]["weight"]
        assert torch.equal(other["learner"]["answered"]["right"], one["learner"]["answered"]["right"])
        assert other["accuracy"] == one["accuracy"]


def test_left_out_rows_use_labels_and_answers_of_the_rest(digits) -> None:
    tasks = hidden([merged(digits)], keep=20)
    trainer = trained(tasks, AnalyticConfig(strength=0.1), DistillConfig())
    rows = labelled_alone(tasks)[0].take("train", torch.arange(3))
    found, _ = trainer.learner.left_out(trainer.collaborator, rows, Units(None, 3), DistillConfig())
    place = (rows_of(tasks, "train").labels >= 0).nonzero()[0, 0]
    others = (torch.arange(tasks[0].num_rows("train")) != place).nonzero()[:, 0]
    without = trained([part_of(tasks[0], "all", others)], AnalyticConfig(strength=0.1), DistillConfig())
    with torch.no_grad():
        expected, _ = without.collaborator(rows.features[:1])
    torch.testing.assert_close(found[:1].float(), expected, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("learner", [*LEARNERS, EwcConfig(online=True), FinetuneConfig()], ids=repr)
def test_later_task_may_have_only_large_model_answers(digits, learner) -> None:
    first, second = hidden(digits[:2], keep=1)
    both = merged([first, second])  # so that all labels are known, and the second task is more of them
    trainer = trained([both, changed(second, blank)], learner, DistillConfig(keep_confidence=0.999))
    assert all(parameter.isfinite().all() for parameter in trainer.collaborator.parameters())
    if isinstance(trainer.learner, Replay):
        assert (trainer.learner.memory.rows.labels >= 0).all()
    assert trainer.accuracy["small"][1][1] > 0.8


@pytest.mark.parametrize(("learner", "later"), [(FinetuneConfig(), False), (AnalyticConfig(), True)], ids=repr)
def test_first_and_closed_form_tasks_need_some_label(digits, learner, later) -> None:
    first, second = hidden(digits[:2], keep=1)
    with pytest.raises(DataError, match="'digits-1' has no labelled train rows"):
        trained([*([first] if later else []), changed(second, blank)], learner, DistillConfig())
