"""The analytic learner ends with the joint fit, whatever the order, the chunks, the ranks and the interruptions."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from kcm.cascade.novelty import Novelty
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.errors import ConfigError
from kcm.kan import KAN
from kcm.kan.basis import Grid, spline_basis
from kcm.learners.analytic import TARGET, AnalyticConfig, mixed_targets
from kcm.learners.base import Batch
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.sequence import SequenceTrainer
from kcm.learners.training.stream import TensorRows
from kcm.metrics.intervals import Units
from tests.kcm.learners.tasks import changed, learned, made_trainer, part_of, rows_of, solved

NETWORK = NetworkConfig(hidden=(), grid_size=2, spline_order=1)
NETWORKS = [
    ("kan", NETWORK),
    ("kan", NETWORK.model_copy(update={"mixing": 100})),
    ("random_relu", NETWORK),
    ("kan", NETWORK.model_copy(update={"mixing": 100, "basis": "quadratic"})),
    ("kan", NETWORK.model_copy(update={"mixing": 300, "basis": "relu"})),
    ("kan", NETWORK.model_copy(update={"mixing": 60, "basis": "pspline", "grid_size": 4, "spline_order": 2})),
]
IDS = ["kan", "mixed", "random_relu", "quadratic", "relu", "pspline"]
LEARNED_CURVES = NETWORKS[-1][1]


def make_trainer(tasks, *, network=NETWORK, learner=None, **options: Any) -> SequenceTrainer:
    return made_trainer(tasks, learner or AnalyticConfig(chunk_size=100), network, **options)


def assert_equal_logits(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-8


@pytest.mark.parametrize(
    ("kind", "network", "num_words"),
    [*((*pair, 0) for pair in NETWORKS), *((*pair, 16) for pair in NETWORKS[2:])],
    ids=[*IDS, *(f"{name} beside words" for name in IDS[2:])],
)
def test_task_after_task_ends_with_the_joint_fit_of_scikit_learn(digits, kind, network, num_words) -> None:
    trainer = make_trainer(digits, kind=kind, network=network, num_words=num_words)
    trainer.run()
    train, test = rows_of(digits, "train"), rows_of(digits, "test")
    judge = trainer.collaborator.judge
    layer = judge.kan_layers[0] if isinstance(judge, KAN) else judge
    inputs, test_inputs = (
        layer.features(trainer.collaborator.inputs(each.features.double())) for each in (train, test)
    )
    distinct = inputs.shape[1] - (
        layer.in_features - 1 if isinstance(judge, KAN) else 0
    )  # without the constants that repeat
    penalty = trainer.learner.fits()[0].strength * float(inputs.square().sum()) / distinct
    oracle = Ridge(alpha=penalty, fit_intercept=False, solver="cholesky")
    expected = oracle.fit(inputs.numpy(), TARGET * np.eye(10)[train.labels]).predict(test_inputs.numpy())
    counts = np.bincount(train.labels)
    expected *= (counts.mean() / counts) ** 0.25
    assert_equal_logits(solved(trainer, test.features)[0], torch.from_numpy(expected))
    with torch.no_grad():
        deployed, small = trainer.collaborator(test.features)
    np.testing.assert_allclose(deployed, expected, atol=1e-3)  # in float32
    np.testing.assert_allclose(deployed, small, atol=1e-4)  # equal weights at another address round differently
    assert float(np.mean(trainer.accuracy["small"][-1])) > (0.9 if num_words else 0.93)  # fewer pixels are bent


@pytest.mark.parametrize("centred", [False, True])
def test_layer_without_base_equals_scikit_learn(digits, centred) -> None:
    network = NETWORK.model_copy(update={"base_activation": "none", "centred": centred})
    trainer = make_trainer(digits[:3], network=network, learner=AnalyticConfig(class_balance=0))
    trainer.run()
    train, test = rows_of(digits[:3], "train"), rows_of(digits[:3], "test")
    inputs, test_inputs = (
        spline_basis(trainer.collaborator.inputs(each.features.double()), Grid(2, 1, -3.0, 3.0)).flatten(1).numpy()
        for each in (train, test)
    )
    penalty = trainer.learner.fits()[0].strength * np.square(inputs).sum() / (inputs.shape[1] - 63)
    oracle = Ridge(alpha=penalty, fit_intercept=False, solver="cholesky")
    expected = oracle.fit(inputs, TARGET * np.eye(10)[train.labels]).predict(test_inputs)
    assert_equal_logits(solved(trainer, test.features)[0], torch.from_numpy(expected))


def test_neither_the_order_of_tasks_nor_the_chunks_matter(digits) -> None:
    test = rows_of(digits[:3], "test").features
    expected = None
    a, b, c = digits[:3]
    for order, chunk_size in (([a, b, c], 5000), ([c, a, b], 64), ([b, c, a], 13)):
        trainer = make_trainer(order, learner=AnalyticConfig(chunk_size=chunk_size))
        trainer.run()
        logits = solved(trainer, test)[0]
        expected = logits if expected is None else expected
        assert_equal_logits(logits, expected)


@pytest.mark.parametrize(("scaling", "num_words"), [("unit", 0), ("unit", 16), ("first_task", 0)])
def test_curves_equal_joint_training_given_the_first_task(digits, scaling, num_words) -> None:
    """Mixtures and scaling come from the first task; the order of all others, and the chunks, change nothing."""
    network = LEARNED_CURVES.model_copy(update={"scaling": scaling})
    test, (first, a, b) = rows_of(digits[:3], "test").features, digits[:3]
    expected = None
    for order, chunk_size in (([first, a, b], 5000), ([first, b, a], 64)):
        learner = AnalyticConfig(chunk_size=chunk_size)
        trainer = make_trainer(order, network=network, num_words=num_words, learner=learner)
        trainer.run()
        logits = solved(trainer, test)[0]
        expected = logits if expected is None else expected
        assert_equal_logits(logits, expected)
    other = make_trainer([a, first, b], network=network, num_words=num_words)
    other.run()
    with pytest.raises(AssertionError):
        assert_equal_logits(solved(other, test)[0], expected)


def test_resume_inside_a_task_ends_equally(digits, tmp_path) -> None:
    undisturbed = make_trainer(digits[:2])
    undisturbed.run()
    assert undisturbed.steps_in_all == 6
    for steps in (0, 2, 3, 4):
        first, resumed = make_trainer(digits[:2]), make_trainer(digits[:2])
        for _ in range(steps):
            first.step()
        torch.save(first.state_dict(), tmp_path / "state.pt")
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        resumed.run()
        assert resumed.accuracy == undisturbed.accuracy
        assert torch.equal(resumed.collaborator.judge.layers[0].weight, undisturbed.collaborator.judge.layers[0].weight)


@pytest.mark.parametrize(
    ("network", "num_words"),
    [(NETWORK, 0), (LEARNED_CURVES, 0), (LEARNED_CURVES, 16)],
    ids=["kan", "pspline", "words"],
)
def test_one_two_and_four_ranks_give_equal_results(digits, uneven, on_ranks, network, num_words) -> None:
    # 267 rows in chunks of 100 leave a last chunk of 67; three rows leave the fourth rank without any.
    tasks = [uneven[0], uneven[2], uneven[1]]
    test = rows_of(digits[:3], "test").features
    logits = []
    for world_size in (1, 2, 4):
        make = partial(make_trainer, tasks, network=network, num_words=num_words)
        trainer = make()
        state = on_ranks(world_size, lambda ranks, make=make: learned(make(ranks=ranks)))
        trainer.load_state_dict(state)
        logits.append(solved(trainer, test)[0])
        with torch.no_grad():
            np.testing.assert_allclose(trainer.collaborator(test)[1], logits[-1], atol=1e-3)
    for other in logits[1:]:
        assert_equal_logits(other, logits[0])


def test_the_state_does_not_grow_with_the_tasks(digits) -> None:
    trainer = make_trainer(digits)
    sizes = set()
    while not trainer.done:
        if trainer.step():
            sizes.add(sum(tensor.nbytes for tensor in trainer.learner.state_dict()["sums"].values()))
    inputs = 64 * 3 + 1  # the base and two contrasts of every input, and a constant
    assert sizes == {8 * (1 + inputs * (inputs + 1) // 2 + inputs * 20 + 20 + 2)}


@pytest.fixture
def tail(digits) -> TensorRows:
    """The first task with nine rows of its first class."""
    labels = rows_of(digits[:1], "train").labels
    return part_of(digits[0], "tail", torch.cat([(labels == 0).nonzero()[:9, 0], (labels == 1).nonzero()[:, 0]]))


def test_balance_raises_rare_seen_classes_only(digits, tail) -> None:
    rows = rows_of(digits[:1], "train")
    logits = []
    for balance in (0.0, 0.5):
        trainer = make_trainer([tail], learner=AnalyticConfig(class_balance=balance))
        trainer.run()
        logits.append(solved(trainer, rows.features)[0])
    count = tail.num_rows("train")
    ones, mean = count - 9, count / 2
    torch.testing.assert_close(logits[1][:, 0], logits[0][:, 0] * (mean / 9) ** 0.5)
    torch.testing.assert_close(logits[1][:, 1], logits[0][:, 1] * (mean / ones) ** 0.5)
    assert torch.equal(logits[1][:, 2:], torch.zeros(len(rows), 8, dtype=torch.float64))


def test_equal_classes_equal_a_weighted_regression(digits, tail) -> None:
    rows = rows_of(digits[:1], "train")
    learner = AnalyticConfig(strength=0.05, class_balance=0, equal_classes=1.0)
    trainer = make_trainer([tail], kind="linear", learner=learner)
    trainer.run()
    few = rows_of([tail], "train")
    x = F.normalize(few.features.double(), dim=1).numpy() * 8  # unit vectors times sqrt(64)
    x, y, half = np.c_[x, np.ones(len(few))], few.labels.numpy(), len(few) / 2
    means = np.stack([x[y == c].mean(0) for c in range(2)])
    within = x - means[y]
    gram = within.T @ within + half * means.T @ means
    penalty = 0.05 * np.trace(gram) / 65
    weight = np.linalg.solve(gram + penalty * np.eye(65), TARGET * half * means.T)
    test = F.normalize(rows.features.double(), dim=1).numpy() * 8
    expected = np.c_[test, np.ones(len(test))] @ weight
    assert_equal_logits(solved(trainer, rows.features)[0][:, :2], torch.from_numpy(expected))


@pytest.mark.parametrize("kind", ["kan", "linear", "random_relu"])
def test_logits_are_adjusted_by_the_share_of_a_class(digits, tail, kind) -> None:
    rows = rows_of(digits[:1], "train")
    logits = []
    for adjustment in (0.0, 2.0):
        learner = AnalyticConfig(class_balance=0, logit_adjustment=adjustment)
        trainer = make_trainer([tail], kind=kind, learner=learner)
        trainer.run()
        logits.append(solved(trainer, rows.features)[0])
    count, expected = tail.num_rows("train"), logits[0].clone()
    expected[:, 0] += 2 * np.log(count / 2 / 9)
    expected[:, 1] += 2 * np.log(count / 2 / (count - 9))
    torch.testing.assert_close(logits[1], expected, atol=1e-5, rtol=1e-6)


def test_the_large_model_teaches_the_small_one_alone(digits) -> None:
    def answered(_: str, rows: Batch) -> Batch:
        softened = 0.3 * torch.eye(10)[(rows.labels + 1) % 10] + 0.7 * torch.eye(10)[rows.labels]
        return replace(rows, large_probabilities=softened)

    tasks = [changed(digits[0], answered)]
    taught, untaught = make_trainer(tasks), make_trainer(digits[:1])
    test = rows_of(digits[:1], "test").features
    for trainer in (taught, untaught):
        trainer.run()
    torch.testing.assert_close(solved(taught, test)[0], solved(untaught, test)[0])
    expected = 0.85 * solved(untaught, test)[1][:, 0].mean()  # half the target is a label, half 0.7 of it
    assert float(solved(taught, test)[1][:, 0].mean()) == pytest.approx(float(expected), rel=0.05)
    alone = make_trainer(tasks, distill=DistillConfig(large_weight=0))
    alone.run()
    assert len(alone.learner.fits()) == 1


def test_only_a_sure_agreeing_large_model_changes_a_target() -> None:
    labels = torch.eye(3, dtype=torch.float64)[[0, 0, 0, 0]]
    large = torch.tensor([[0.8, 0.2, 0.0], [0.4, 0.35, 0.25], [0.1, 0.9, 0.0], [float("nan")] * 3], dtype=torch.float64)
    mixed = mixed_targets(labels, large, DistillConfig(large_weight=3.0, large_confidence=0.5))
    torch.testing.assert_close(mixed[0], torch.tensor([0.85, 0.15, 0.0], dtype=torch.float64))
    assert torch.equal(mixed[1:], labels[1:])
    nobody = torch.full((4, 1), float("nan"), dtype=torch.float64)
    assert torch.equal(mixed_targets(labels, nobody, DistillConfig()), labels)


def test_too_large_regression_is_refused_by_size() -> None:
    wide = Collaborator(30_000, 2, NetworkConfig(hidden=(), basis="quadratic", mixing=8), "kan", seed=0)
    with pytest.raises(ConfigError, match=r"30,009 inputs takes 20 GiB .* 30,000 inputs are the most"):
        AnalyticConfig().build(0).require(wide)


@pytest.mark.parametrize(("kind", "network"), [*NETWORKS[2:4], NETWORKS[5]], ids=[*IDS[2:4], IDS[5]])
@pytest.mark.parametrize("grouped", [False, True])
def test_left_out_rows_equal_a_learner_without_their_unit(digits, kind, network, grouped) -> None:
    learner = AnalyticConfig(strength=0.1, class_balance=0.0)
    distill = DistillConfig(large_weight=0.0)
    trainer = make_trainer(digits[:1], kind=kind, network=network, learner=learner, distill=distill)
    trainer.run()
    rows = rows_of(digits[:1], "train")
    unit_N = np.arange(len(rows)) // 3 if grouped else np.arange(len(rows))
    units = Units(unit_N.astype(object), len(rows))
    left_out, _ = trainer.learner.left_out(trainer.collaborator, rows, units, distill)

    judge = trainer.collaborator.judge
    phi = judge.features(trainer.collaborator.inputs(rows.features.double())).numpy()
    penalty = 0.1 * np.square(phi).sum() / phi.shape[1]
    targets = TARGET * np.eye(10)[rows.labels]
    for unit in (0, 7):
        out = unit_N == unit
        oracle = Ridge(alpha=penalty, fit_intercept=False, solver="cholesky").fit(phi[~out], targets[~out])
        np.testing.assert_allclose(left_out[out], oracle.predict(phi[out]), atol=1e-8)


def test_unknown_class_outputs_stay_far_for_any_weights(digits) -> None:
    known, unknown = rows_of(digits[:4], "test").features, rows_of(digits[4:], "test").features
    found = []
    for learner in (AnalyticConfig(class_balance=0.0), AnalyticConfig(class_balance=0.5, logit_adjustment=1.0)):
        trainer = make_trainer(digits[:4], learner=learner)
        trainer.run()
        again = learner.build(0)
        again.load_state_dict(trainer.learner.state_dict())
        judge, _ = solved(trainer, torch.cat([known, unknown]))
        found.append(Novelty.of(again.state_dict()).distances(judge.numpy()))
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert roc_auc_score(np.arange(len(found[0])) >= len(known), found[0]) > 0.9


def test_label_without_rows_is_known_when_another_is_out(digits) -> None:
    """A named class may come without a train row; the outputs that it gets at the end are in the sums too."""
    trainer = make_trainer(digits[:4], learner=AnalyticConfig(), train=TrainConfig(mask_unseen=True))
    trainer.run()
    rows = rows_of(digits[:4], "test")
    judge, small = trainer.collaborator(rows.features)
    assert judge.shape[1] == 10
    without, _ = trainer.learner.without_own_class(judge, small, rows.labels)
    assert without.isfinite().sum(1).eq(9).all()
    assert np.isfinite(Novelty.of(trainer.state_dict()["learner"]).distances(without.numpy())).all()


def test_of_many_labels_no_metric_of_their_residuals_is_kept(digits, monkeypatch) -> None:
    monkeypatch.setattr("kcm.learners.analytic.MAX_RESIDUALS", 7)
    trainer = make_trainer(digits[:4], learner=AnalyticConfig())
    trainer.run()
    assert trainer.learner.state_dict()["residuals"] == {}
