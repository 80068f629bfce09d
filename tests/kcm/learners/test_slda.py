"""Streaming LDA ends with the LDA of all rows at once, on features, on splines and on random units."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kcm.collaborator.collaborator import NetworkConfig
from kcm.errors import ConfigError
from kcm.learners.analytic import designs
from kcm.learners.base import Batch
from kcm.learners.slda import SldaConfig
from kcm.learners.training.sequence import SequenceTrainer
from tests.kcm.learners.tasks import made_trainer, rows_of, solved

NETWORK = NetworkConfig(hidden=(), grid_size=2, spline_order=1)
NETWORKS = {
    "linear": ("linear", NETWORK),
    "splines": ("kan", NETWORK),
    "centred": ("kan", NETWORK.model_copy(update={"base_activation": "none", "centred": True})),
    "squares": ("kan", NETWORK.model_copy(update={"mixing": 100, "basis": "quadratic"})),
    "random units": ("random_relu", NETWORK),
}


def make(tasks, name="splines", **changes: Any) -> SequenceTrainer:
    kind, network = NETWORKS[name]
    return made_trainer(
        tasks, SldaConfig(shrinkage=0.05, chunk_size=100), network.model_copy(update=changes), kind=kind
    )


def lda(x: np.ndarray, y: np.ndarray, test: np.ndarray, shrinkage: float) -> np.ndarray:
    """LDA written out, from the rows; scores of the first class taken off."""
    labels = np.unique(y)
    means = np.stack([x[y == c].mean(0) for c in labels])
    within = x - means[np.searchsorted(labels, y)]
    pooled = within.T @ within / (len(x) - len(labels))
    shrunk = (1 - shrinkage) * pooled + shrinkage * np.trace(pooled) / len(pooled) * np.eye(len(pooled))
    weight = np.linalg.solve(shrunk, (means - x.mean(0)).T)
    scores = test @ weight - ((means + x.mean(0)).T / 2 * weight).sum(0)
    return scores - scores[:, :1]


@pytest.mark.parametrize("name", NETWORKS)
def test_task_after_task_ends_with_the_lda_of_all_rows(digits, name) -> None:
    trainer = make(digits, name)
    trainer.run()
    train, test = rows_of(digits, "train"), rows_of(digits, "test")

    def inputs(rows: Batch) -> np.ndarray:
        if name == "linear":  # the features themselves, and a constant: an input without variance
            return np.c_[8 * F.normalize(rows.features.double(), dim=1).numpy(), np.ones(len(rows))]
        return designs(trainer.collaborator)[0].inputs(trainer.collaborator.inputs(rows.features.double())).numpy()

    expected = lda(inputs(train), train.labels.numpy(), inputs(test), 0.05)
    scale = np.abs(expected).max()
    judge = solved(trainer, test.features)[0].numpy()
    np.testing.assert_allclose((judge - judge[:, :1]) / scale, expected / scale, atol=1e-8)
    deployed = trainer.collaborator(test.features)[1].argmax(1)
    assert (deployed.numpy() == expected.argmax(1)).mean() > 0.995  # in float32
    assert float((deployed == test.labels).float().mean()) > 0.93


def test_row_without_its_class_keeps_the_other_logits(digits) -> None:
    """And nothing is searched: the strength of a ridge has no say in LDA."""
    trainer = make(digits)
    trainer.run()
    test = rows_of(digits, "test")
    labels = test.labels
    with torch.no_grad():
        logits = trainer.collaborator(test.features)[0]
    judge, small = trainer.learner.without_own_class(logits, logits, labels)
    own = F.one_hot(labels, 10).bool()
    assert torch.equal(judge, small)
    assert torch.equal(judge[~own], logits[~own])
    assert (judge[own] == -torch.inf).all()
    assert trainer.learner.chosen == []


@pytest.mark.parametrize("changes", [{"hidden": (8,)}, {"base": "lda"}], ids=str)
def test_networks_that_it_cannot_solve_for_are_refused(digits, changes) -> None:
    with pytest.raises(ConfigError, match=f"network.{next(iter(changes))}"):
        make(digits, **changes)


def test_labels_not_seen_yet_are_never_the_answer(digits) -> None:
    trainer = make(digits)
    while trainer.position.task < 2:
        trainer.step()
    answers = torch.cat([logits.argmax(1) for logits in trainer.collaborator(rows_of(digits, "test").features)])
    assert set(answers.tolist()) <= {0, 1, 2, 3}
