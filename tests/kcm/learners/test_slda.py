"""Streaming LDA ends with the LDA of all rows at once, on features, on splines and on random units."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.errors import ConfigError
from kcm.learners import SldaConfig
from kcm.learners.analytic import designs
from kcm.learners.ranks import Ranks
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.trainer import Trainer

NETWORK = NetworkConfig(hidden=(), grid_size=2, spline_order=1)
NETWORKS = {
    "linear": ("linear", NETWORK),
    "splines": ("kan", NETWORK),
    "centred": ("kan", NETWORK.model_copy(update={"base_activation": "none", "centred": True})),
    "squares": ("kan", NETWORK.model_copy(update={"mixing": 100, "basis": "quadratic"})),
    "random units": ("random_relu", NETWORK),
}


def make(tasks, name: str = "splines", *, ranks: Ranks | None = None, chunk_size: int = 100, **changes) -> Trainer:
    kind, network = NETWORKS[name]
    collaborator = Collaborator(64, 10, network.model_copy(update=changes), kind, seed=0)
    learner = SldaConfig(shrinkage=0.05, chunk_size=chunk_size).build(0)
    return Trainer(collaborator, learner, tasks, TrainConfig(), DistillConfig(), seed=0, ranks=ranks)


def solved(trainer: Trainer, features: torch.Tensor) -> torch.Tensor:
    """The judge's logits of the same solution in networks of float64, those of the first label taken off."""
    precise = copy.deepcopy(trainer.collaborator).double()
    trainer.learner.solve(precise, Ranks())
    with torch.no_grad():
        logits = precise(features.double())[0]
    return logits - logits[:, :1]


def rows_of(tasks, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    batches = [task.take(split, torch.arange(task.num_rows(split))) for task in tasks]
    return torch.cat([batch.features for batch in batches]), torch.cat([batch.labels for batch in batches])


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
    (x, y), (test, labels) = rows_of(digits, "train"), rows_of(digits, "test")
    design = designs(trainer.collaborator)[0]
    inputs, test_inputs = (design.inputs(trainer.collaborator.inputs(each.double())).numpy() for each in (x, test))
    expected = lda(inputs, y.numpy(), test_inputs, 0.05)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(solved(trainer, test).numpy() / scale, expected / scale, atol=1e-8)
    deployed = trainer.collaborator(test)[1].argmax(1)
    assert (deployed.numpy() == expected.argmax(1)).mean() > 0.995  # in float32
    assert float((deployed == labels).float().mean()) > 0.93


def test_on_a_linear_network_it_is_the_lda_of_the_features_themselves(digits) -> None:
    trainer = make(digits[:3], "linear")
    trainer.run()
    (x, y), (test, _) = rows_of(digits[:3], "train"), rows_of(digits[:3], "test")
    x, test_x = (8 * F.normalize(each.double(), dim=1).numpy() for each in (x, test))
    # The regression's constant is an input without variance, which takes part in the mean of the diagonal alone.
    expected = lda(np.c_[x, np.ones(len(x))], y.numpy(), np.c_[test_x, np.ones(len(test_x))], 0.05)
    found = solved(trainer, test)[:, :6].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-8)


@pytest.mark.parametrize("name", ["splines", "random units"])
def test_labels_not_seen_yet_are_never_the_answer(digits, name) -> None:
    trainer = make(digits, name)
    while trainer.position.task < 2:
        trainer.step()
    answers = torch.cat([logits.argmax(1) for logits in trainer.collaborator(rows_of(digits, "test")[0])])
    assert set(answers.tolist()) <= {0, 1, 2, 3}
    assert trainer.accuracy["judge"][-1][2:] == [0.0, 0.0, 0.0]


def test_without_its_own_class_a_row_gets_the_other_logits_as_they_are(digits) -> None:
    """And nothing is searched: the strength of a ridge has no say in LDA."""
    trainer = make(digits)
    trainer.run()
    features, labels = rows_of(digits, "test")
    with torch.no_grad():
        logits = trainer.collaborator(features)[0]
    judge, small = trainer.learner.without_own_class(logits, logits, labels)
    own = F.one_hot(labels, 10).bool()
    assert torch.equal(judge, small)
    assert torch.equal(judge[~own], logits[~own])
    assert (judge[own] == -torch.inf).all()
    assert trainer.learner.chosen == []


@pytest.mark.parametrize("changes", [{"hidden": (8,)}, {"scaling": "first_task"}, {"base": "lda"}], ids=str)
def test_networks_that_it_cannot_solve_for_are_refused(digits, changes) -> None:
    with pytest.raises(ConfigError, match=f"network.{next(iter(changes))}"):
        make(digits, **changes)
