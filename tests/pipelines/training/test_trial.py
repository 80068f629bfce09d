"""A trial on a bucket reads the validate rows by ranges, and finds what it would find on a disk."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kcm.certification.certificate import CertificateConfig
from kcm.learners import Learner
from pipelines.batch import outcome_table
from pipelines.store.artefact import ArtefactStore
from pipelines.training import trial
from pipelines.training.artefacts import Tuned
from pipelines.training.fitting import deciding_rows
from pipelines.training.trial import Choice, TrialPlan
from tests.pipelines.made_parts import SIZES, Fetched, logits, written

CHOICE = Choice(0.01, 0.5, 0.5, gate="signals", scope="global")  # its gate reads features


@pytest.fixture(autouse=True)
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome_table, "logits", logits)
    monkeypatch.setattr(TrialPlan, "state", lambda plan, name, choice: {"learner": {}})


def trials(place: str | Path) -> TrialPlan:
    features, outcomes = written(ArtefactStore(place))
    features.holding(0, "validate")  # the index of the rows is read once
    plan: Any = SimpleNamespace(
        collaborator=lambda name, state: SimpleNamespace(base=None),
        learner=lambda name: Learner(),
        num_labels=2,
        features=features,
        outcomes=outcomes,
        config=SimpleNamespace(seed=0),
    )
    unused: Any = None
    return TrialPlan(plan, unused, unused, max_loss=0.1, certificate=CertificateConfig())


def same(one: Tuned, other: Tuned) -> None:
    np.testing.assert_array_equal(one.validate_scores, other.validate_scores)
    assert one.reached == other.reached
    assert one.policy == other.policy


def test_bucket_trial_is_equal_and_fetches_validate_rows_once(
    node_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a trial finds the same on a bucket and fetches only validate rows once."""
    on_disk = trials(tmp_path / "storage").evaluate("kcm", CHOICE)
    in_bucket = trials(node_bucket)
    sizes = [stat.size for stat in ArtefactStore(node_bucket).storage.files.list("artefacts")]
    fetched = Fetched(monkeypatch)
    assert len(on_disk.validate_scores) == SIZES["validate"]
    same(in_bucket.evaluate("kcm", CHOICE), on_disk)
    assert fetched.shards == []
    assert 0 < fetched.ranges < sum(sizes) / 4
    before = fetched.ranges
    same(in_bucket.evaluate("kcm", CHOICE), on_disk)
    assert fetched.ranges == before


def test_goal_accuracy_ranks_by_certified_accuracy(tmp_path: Path) -> None:
    """The policy carries its goal, and the forecast covers its accuracy."""
    by_calls = trials(tmp_path / "storage")
    by_accuracy = replace(by_calls, goal="accuracy", certificate=CertificateConfig(epsilon=0.3))
    found = by_accuracy.evaluate("kcm", CHOICE)
    kept = by_calls.evaluate("kcm", CHOICE)
    assert (kept.policy.goal, found.policy.goal) == ("calls", "accuracy")
    parts = deciding_rows(by_calls.plan.features, by_calls.plan.outcomes)
    large = [part.answers["large_label"].to_numpy() == part.rows["label"].to_numpy() for part in parts]
    assert found.reached["forecast_accuracy"] >= np.concatenate(large).mean()
    assert found.reached["calls_saved"] <= kept.reached["calls_saved"]


def test_excess_validate_rows_are_not_held(node_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: more validate rows than a gate is fitted on are not held."""
    monkeypatch.setattr(trial, "MAX_FITTED_ROWS", SIZES["validate"] - 1)
    on_disk, in_bucket = trials(tmp_path / "storage"), trials(node_bucket)
    fetched = Fetched(monkeypatch)
    expected = on_disk.evaluate("kcm", CHOICE)
    same(in_bucket.evaluate("kcm", CHOICE), expected)
    once = fetched.ranges
    same(in_bucket.evaluate("kcm", CHOICE), expected)
    assert (fetched.shards, fetched.ranges) == ([], 2 * once)
