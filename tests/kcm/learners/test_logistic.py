"""Logistic regression: the same as scikit-learn's on the rows of all tasks, and honest about rows left out."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegressionCV

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners.base import Batch, joined
from kcm.learners.logistic import INVERSE_STRENGTHS, Logistic
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.sequence import SequenceTrainer
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import trainer_of
from kcm.metrics.intervals import Units
from tests.kcm.learners.tasks import rows_of


def untrained(tasks: list[TensorRows]) -> SequenceTrainer:
    collaborator = Collaborator(64, 10, NetworkConfig(hidden=()), "linear", seed=0)
    return trainer_of(collaborator, Logistic(), tasks, TrainConfig(), DistillConfig(), seed=0)


def trained(tasks: list[TensorRows]) -> SequenceTrainer:
    trainer = untrained(tasks)
    trainer.run()
    return trainer


@pytest.mark.parametrize("num_tasks", [1, 5], ids=["two classes", "ten classes"])
def test_final_state_equals_scikit_learn_on_all_tasks(digits, num_tasks) -> None:
    """Promise: the strength of the control is tuned, by cross-validation on the train rows."""
    digits = digits[:num_tasks]
    train, test = rows_of(digits, "train"), rows_of(digits, "test")
    x, later = (rows.features.double().numpy() for rows in (train, test))
    x, later = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, later))
    oracle = LogisticRegressionCV(
        Cs=INVERSE_STRENGTHS,
        cv=5,
        scoring="neg_log_loss",
        max_iter=5000,
        tol=1e-8,
        l1_ratios=(0,),
        use_legacy_attributes=False,
    )
    oracle.fit(x, train.labels.numpy())
    assert oracle.C_ in INVERSE_STRENGTHS[1:]  # so that a choice is proved
    with torch.no_grad():
        judge, small = trained(digits).collaborator(test.features)
    assert torch.equal(judge, small)
    np.testing.assert_allclose(judge.softmax(-1)[:, oracle.classes_], oracle.predict_proba(later), atol=0.02)


def test_stop_within_a_task_ends_equally(digits, monkeypatch) -> None:
    monkeypatch.setattr(Logistic, "chunk_size", 100)
    stopped, resumed = untrained(digits), untrained(digits)
    while (stopped.position.task, stopped.position.step) != (len(digits) - 1, 3):
        stopped.step()
    resumed.load_state_dict(stopped.state_dict())
    resumed.run()
    theirs = trained(digits).collaborator.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in resumed.collaborator.state_dict().items())


def test_left_out_answers_never_saw_their_unit(digits) -> None:
    trainer, rows = trained(digits), rows_of(digits, "train")
    twice = joined([rows, rows])  # a copy gives a row's answer away unless both leave together
    labels = twice.labels.clone()
    wrong = torch.randperm(len(labels) // 2, generator=torch.Generator().manual_seed(0))[:100]
    labels[wrong] = labels[wrong + len(rows)] = (labels[wrong] + 1) % 10
    twice = Batch(twice.features, labels, twice.large_probabilities, twice.weights)
    units = Units(np.tile(np.arange(len(rows)), 2).astype(object), len(twice))
    logits, _ = trainer.learner.left_out(trainer.collaborator, twice, units, DistillConfig())
    right = logits.argmax(-1) == labels
    assert right[wrong].float().mean() < 0.1
    assert right.float().mean() > 0.7


def test_a_single_class_is_answered_with_itself() -> None:
    features = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    rows = Batch(features, torch.full((5,), 3), torch.full((5, 1), torch.nan), torch.ones(5))
    ids = [str(row) for row in range(5)]
    trainer = trained([TensorRows("only", {"train": (ids, rows), "test": (ids, rows)})])
    assert (trainer.collaborator(features)[0].argmax(-1) == 3).all()
