"""The bundle of a labelled table: it answers the next file, keeps as much as the job kept, and promises nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kcm.bundle.answers import Input
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import SmallSide, logits
from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL
from kcm.encoders.precomputed import PrecomputedConfig
from kcm.explain.explanation import explain, variants
from kcm.inputs.content import Content
from kcm.labelling.bundle import bundle_of, decision_keeping
from kcm.labelling.certificate import Labelled
from kcm.labelling.purchases import Guess
from kcm.large.adapters.openai import OpenAiConfig
from tests.kcm.explain.test_explanation import CountingEncoder

LABELS = ("bad", "good", "neither")
NUM_TEXTS, NUM_BOUGHT, DIM = 600, 240, 8


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    """Two overlapping clouds; the texts of the second half are `good`, and `neither` has none."""
    rng = np.random.default_rng(0)
    clouds = np.repeat([[-0.4], [0.4]], NUM_TEXTS // 2, axis=0) + rng.normal(size=(NUM_TEXTS, DIM))
    return clouds.astype(np.float32)


@pytest.fixture(scope="module")
def finished() -> Labelled:
    """A job that bought 240 of 600 texts, among them some of both labels."""
    truth = np.repeat([0, 1], NUM_TEXTS // 2)
    bought = np.zeros(NUM_TEXTS, dtype=bool)
    bought[np.random.default_rng(1).permutation(NUM_TEXTS)[:NUM_BOUGHT]] = True
    guess = Guess(truth, np.full(NUM_TEXTS, 0.1))
    return Labelled(
        answer_U=truth,
        wrong_U=guess.wrong_U,
        bought_U=bought,
        failed_U=np.zeros(NUM_TEXTS, dtype=bool),
        asked_U=bought,
        guess=guess,
        taught_U=bought,
        num_rows=NUM_TEXTS,
        allowed=60,
        differ=60,
    )


def made_of(features: np.ndarray, finished: Labelled) -> Bundle:
    server = OpenAiConfig(adapter="openai", model="large", base_url="http://127.0.0.1:1/v1", api_key_env=None)
    encoder = PrecomputedConfig(kind="precomputed", columns=tuple("abcdefgh"))
    return bundle_of(features, finished, LABELS, encoder, server, Path("assets"), seed=0)


@pytest.fixture(scope="module")
def bundle(features: np.ndarray, finished: Labelled, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle as `kcm predict` reads it."""
    return Bundle.read(made_of(features, finished).write(tmp_path_factory.mktemp("labelled") / "bundle"))


def test_its_network_is_kcm_and_explains_itself(bundle: Bundle) -> None:
    """Promise: what `kcm label` deploys is KCM by name, and its reasons sum to its logit."""
    assert (bundle.collaborator.name, bundle.collaborator.form) == ("kcm", "quadratic")
    given = Input(Content("a good film"))
    found = explain(bundle, given, SmallSide(bundle, CountingEncoder()).judge(variants(given)))
    features = torch.tensor(CountingEncoder().encode([given.content]))
    logits_C = bundle.collaborator(features)[0][0].detach()
    (reasons,) = found.reasons.values()  # judge and small model are one network
    assert reasons.exact
    added = sum(each.contribution for each in reasons.contributions) + reasons.rest
    assert float(logits_C[reasons.label]) == pytest.approx(reasons.baseline + added, abs=1e-4)


def test_new_rows_are_kept_as_often(bundle: Bundle) -> None:
    """Of new rows about the share is kept that the job kept, though it was trained on the table's own rows."""
    rng = np.random.default_rng(2)
    new = np.repeat([[-0.4], [0.4]], 2000, axis=0) + rng.normal(size=(4000, DIM))
    judge, small = logits(bundle.collaborator, new.astype(np.float32))
    kept = bundle.policy.keep(bundle.gate.score(None, judge, small))
    assert abs(kept.mean() - 0.6) < 0.07
    assert (small.argmax(1) == np.repeat([0, 1], 2000))[kept].mean() > 0.9
    assert (small.argmax(1) != 2).all()  # a label that nobody gave is never answered


def test_bundle_of_a_large_table_is_made_in_blocks(
    bundle: Bundle, features: np.ndarray, finished: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: how many texts are in memory together changes neither temperature nor threshold."""
    monkeypatch.setattr("kcm.labelling.bundle._AT_ONCE", 50)
    policy = made_of(features, finished).policy
    assert policy.temperature == pytest.approx(bundle.policy.temperature)
    assert policy.decision.threshold == pytest.approx(bundle.policy.decision.threshold, abs=1e-6)


def test_bundle_promises_nothing(bundle: Bundle) -> None:
    """The table's certificate is about the table: the bundle has none."""
    assert bundle.certificates == {}
    assert bundle.certified_by is None


@pytest.mark.parametrize("num_kept", [1, 2, 4])
def test_threshold_keeps_that_many(num_kept: int) -> None:
    """As many scores lie above the threshold as are to be kept."""
    scores = np.array([0.3, -1.0, 2.0, 0.7, 0.1])
    assert decision_keeping(scores, num_kept).keep(scores).sum() == num_kept


def test_equal_scores_keep_fewer() -> None:
    """Equal scores are kept or escalated together, and never more than the job kept."""
    scores = np.array([1.0, 1.0, 1.0, 5.0])
    assert decision_keeping(scores, 2).keep(scores).tolist() == [False, False, False, True]


def test_none_and_all_have_no_threshold() -> None:
    """A job that kept nothing escalates all, and one that bought nothing keeps all."""
    assert decision_keeping(np.arange(3.0), 0) == ESCALATE_ALL
    assert decision_keeping(np.arange(3.0), 3) == KEEP_ALL
