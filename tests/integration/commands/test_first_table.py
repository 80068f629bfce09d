"""The benchmark of first tables deploys what `kcm run` deploys: its harness and the command agree on the same rows."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchmarks import first_table

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_harness_agrees_with_the_command() -> None:
    """Both keep about the same share of fresh rows: splits and settings are the same, the order of rows is not."""
    values, labels = load_digits(return_X_y=True)
    features = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    random = np.random.default_rng(0)
    large = np.where(random.random(len(labels)) < 0.96, labels, (labels + 1) % 10)
    rows, order = first_table.Rows(features, labels, large), random.permutation(len(labels))
    train, certify, fresh = (rows.at(part) for part in np.split(order, [650, 900]))
    draw = first_table.Draw(train, certify, fresh, 10)
    harness, command = first_table.measured(first_table.ours, draw), first_table.commanded(draw)
    assert command["deployed"] == harness["deployed"]
    assert command["saved"] == pytest.approx(harness["saved"], abs=0.05)
    assert command["lost"] == pytest.approx(harness["lost"], abs=0.01)
    assert command["saved"] > 0.2
