"""The gate `signals`: it knows what a judge does not, can be read whole, and never looks better than it is."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from kcm.cascade import signals
from kcm.cascade.frontier import Frontier
from kcm.cascade.gate_kinds import GateInputs, GateRows, form_named
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.reference import Reference
from kcm.collaborator.collaborator import Collaborator, NetworkConfig

FORM = form_named("signals")
NUM_LABELS, DIM = 4, 6


@pytest.fixture(scope="module")
def reference():
    """Class means along the axes, with an LDA base over them, and 40 remembered rows."""
    rng = np.random.default_rng(0)
    label = np.arange(400) % NUM_LABELS
    features = torch.from_numpy((np.eye(DIM)[label] * 3 + rng.normal(size=(400, DIM))).astype(np.float32))
    collaborator = Collaborator(DIM, NUM_LABELS, NetworkConfig(hidden=(), base="lda"), "kan", seed=0)
    collaborator.base.add(collaborator.base.sums_of([(features, torch.from_numpy(label))]))
    memory = {"ids": [str(i) for i in range(40)], "features": features[:40], "labels": torch.from_numpy(label[:40])}
    return Reference.of(collaborator, {"memory": memory})


def world(num_rows, seed=0):
    """The small model is wrong far from the class means, where its judge is as sure as anywhere."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, NUM_LABELS, num_rows)
    near = rng.random(num_rows) < 0.7
    features = np.where(near[:, None], np.eye(DIM)[label] * 3, 0) + rng.normal(size=(num_rows, DIM))
    logits = rng.normal(size=(num_rows, NUM_LABELS))
    logits[np.arange(num_rows), label] += 3
    small = rng.random(num_rows) < np.where(near, 0.97, 0.6)
    return GateInputs(logits, logits, features.astype(np.float32)), small, rng.random(num_rows) < 0.95


def fitted(rows, reference, **more):
    inputs, small, large = rows
    return FORM.fit(GateRows(inputs=inputs, small_correct=small, large_correct=large, reference=reference, **more))


def area(score, small, large):
    return Frontier.of(ScoredOutcomes(score=score, small_correct=small, large_correct=large)).area()


def test_it_beats_a_confidence_that_does_not_know_what_is_far(reference):
    head = fitted(world(1500), reference).head
    inputs, small, large = world(4000, seed=1)
    plain = form_named("confidence").unfitted().score(inputs)
    assert area(head.score(inputs), small, large) > area(plain, small, large) + 0.01


def test_out_of_fold_scores_promise_what_other_rows_keep(reference):
    _, small, _ = rows = world(4000)
    found = fitted(rows, reference)
    inputs, fresh, _ = world(4000, seed=1)
    promised, kept = roc_auc_score(small, found.scores), roc_auc_score(fresh, found.head.score(inputs))
    assert kept > 0.7
    assert promised == pytest.approx(kept, abs=0.04)


def test_curves_follow_their_direction_and_are_readable(reference):
    head = fitted(world(1500), reference).head
    names = [signal.name for signal in head.signals]
    assert names[-2:] == ["small accuracy", "large accuracy"]
    assert "nearest mean" in names
    assert "agreement" not in names  # of one network, it orders rows as the confidence does
    for signal, (points, added) in zip(head.signals, head.curves.drawn(), strict=True):
        assert (np.diff(points) > 0).all()
        assert (signal.direction * np.diff(added) >= -1e-9).all()
    assert head.curves.kan.kan_layers[0].weight.numel() == 7 * len(names)


def test_a_score_is_the_constant_and_what_its_curves_add(reference):
    inputs, *_ = rows = world(300)
    head = fitted(rows, reference).head
    parts = head.curves.contributions(head.values(inputs))
    np.testing.assert_allclose(head.score(inputs), head.curves.constant + parts.sum(1))
    np.testing.assert_allclose(parts.mean(0)[:-2], 0, atol=1e-6)  # rates of fitted rows are those of other folds


@pytest.mark.parametrize("num_labels", [3, 60])  # with few rows of a label, its accuracy would give a row away
def test_out_of_fold_scores_do_not_know_the_labels_of_their_rows(num_labels):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(600, num_labels))
    small = rng.random(600) < 0.5  # pure noise
    score = fitted((GateInputs(logits, logits), small, np.ones(600, dtype=bool)), Reference.nothing()).scores
    assert 0.44 < roc_auc_score(small, score) < 0.56


def test_rows_of_a_group_are_out_of_fold_together():
    rng = np.random.default_rng(0)
    logits = np.repeat(rng.normal(size=(150, 50)), 4, axis=0)  # copies, whose labels' accuracies give each other away
    small = np.repeat(rng.random(150) < 0.5, 4)
    group = np.repeat(np.arange(150).astype(str), 4).astype(object)
    rows = (GateInputs(logits, logits), small, np.ones(600, dtype=bool))
    assert roc_auc_score(small, fitted(rows, Reference.nothing()).scores) > 0.7
    assert 0.4 < roc_auc_score(small, fitted(rows, Reference.nothing(), group=group).scores) < 0.6


def test_rows_beyond_the_limit_get_out_of_fold_scores(reference, monkeypatch):
    monkeypatch.setattr(signals, "MAX_ROWS", 150)
    inputs, *_ = rows = world(400)
    found = fitted(rows, reference)
    own = np.isclose(found.head.score(inputs), found.scores, atol=1e-12)
    assert 245 <= own.sum() <= 255


def test_infinitely_sure_rows_and_labels_without_rows_do_no_harm(reference):
    inputs, small, large = world(200)
    inputs.judge_logits_NC[:20, 1:] = -np.inf
    assert np.isfinite(fitted((inputs, small, large), reference).scores).all()
    unseen = Reference.of(
        Collaborator(DIM, NUM_LABELS, NetworkConfig(hidden=(), base="means"), "kan", seed=0), {}
    )  # no row of any class yet
    assert np.isfinite(fitted((inputs, small, large), unseen).scores).all()
