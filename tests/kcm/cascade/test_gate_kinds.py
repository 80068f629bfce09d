"""Scores of the judge against their definitions in 60 digits, and where floats end."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcm.cascade.gate_kinds import SCORES, confidence, entropy, margin

logits = st.lists(st.floats(-30, 30), min_size=2, max_size=6)


@settings(max_examples=80)
@given(logits)
def test_scores_are_their_definitions(row):
    with localcontext(prec=60):
        weights = sorted((Decimal(z).exp() for z in row), reverse=True)
        log_odds = (weights[0] / sum(weights[1:])).ln()
        shares = [weight / sum(weights) for weight in weights]
        negative_entropy = sum(share * share.ln() for share in shares)
    z_NC = np.array([row])
    assert confidence(z_NC)[0] == pytest.approx(float(log_odds), rel=1e-12, abs=1e-12)
    assert entropy(z_NC)[0] == pytest.approx(float(negative_entropy), rel=1e-12, abs=1e-14)
    assert margin(z_NC)[0] == sorted(row)[-1] - sorted(row)[-2]


@pytest.mark.parametrize("score", SCORES.values())
def test_order_of_sure_rows_survives_probability_one(score):
    gaps = np.array([17.0, 18.0, 40.0, 300.0])
    z_NC = np.stack([gaps, np.zeros(4), np.zeros(4)], 1).astype(np.float32)
    p = np.exp(z_NC - z_NC.max(1, keepdims=True))
    assert len(np.unique((p / p.sum(1, keepdims=True)).max(1))) == 1
    assert (np.diff(score(z_NC.astype(np.float64))) > 0).all()


@pytest.mark.parametrize("score", SCORES.values())
def test_labels_that_cannot_be_answered_change_nothing(score):
    z_NC = np.array([[1.0, 3.0, 2.5], [0.0, 0.0, 0.0]])
    padded = np.insert(z_NC, 1, -np.inf, axis=1)
    np.testing.assert_allclose(score(padded), score(z_NC), rtol=1e-15)


@pytest.mark.parametrize(("score", "surest"), [(confidence, np.inf), (margin, np.inf), (entropy, 0.0)])
def test_a_single_answerable_label_is_as_sure_as_can_be(score, surest):
    assert score(np.array([[2.0, -np.inf]])).tolist() == [surest]
    assert score(np.array([[2.0]])).tolist() == [surest]


@pytest.mark.parametrize("score", SCORES.values())
def test_a_row_scores_alike_alone_and_in_a_batch(score):
    z_NC = np.random.default_rng(1).normal(size=(257, 10))
    alone = np.concatenate([score(row[None]) for row in z_NC])
    np.testing.assert_array_equal(score(z_NC), alone)
