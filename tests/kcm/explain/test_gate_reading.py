"""The gate of signals, read whole: what is drawn adds up to the score that decides."""

import numpy as np
import pytest
import torch

from kcm.bundle.answers import Input
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import SmallSide, logits
from kcm.cascade.gate_kinds import GateInputs, GateRows, form_named
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.cascade.reference import Reference
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.explain.explanation import explain
from kcm.explain.gate import gate_curves, label_rates, read_gate
from kcm.inputs.content import Content
from tests.kcm.bundle.test_bundle import bundle as any_bundle

DIM = 16


def fitted_rows() -> tuple[np.ndarray, np.ndarray]:
    """Features of the rows that the gate is fitted on, and whether small and large are right on them."""
    rng = np.random.default_rng(0)
    return rng.random((120, DIM)).astype(np.float32), rng.random((2, 120)) < 0.7


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    features, right = fitted_rows()
    collaborator = Collaborator(DIM, 3, NetworkConfig(hidden=(), base="lda"), "kan", seed=0).requires_grad_(False)
    assert collaborator.base is not None
    collaborator.base.add(collaborator.base.sums_of([(torch.from_numpy(features), torch.arange(120) % 3)]))
    judge, small = (each / 0.5 for each in logits(collaborator, features))
    fitted = form_named("signals").fit(
        GateRows(
            inputs=GateInputs(judge, small, features),
            small_correct=right[0],
            large_correct=right[1],
            reference=Reference.of(collaborator, {}),
        )
    )
    policy = Policy(gate="signals", temperature=0.5, decision=KEEP_ALL)
    return any_bundle(collaborator=collaborator, policy=policy, gate_head=fitted.head)


def test_constant_and_curves_add_up_to_the_score(bundle: Bundle) -> None:
    features = np.random.default_rng(1).random((1, DIM)).astype(np.float32)
    given = Input(Content(image=b"-"))
    (judgement,) = SmallSide(bundle, None).judge_features(features, [given], 0.0)  # type: ignore[arg-type]
    reading = explain(bundle, given, [judgement]).gate
    assert reading is not None
    assert reading.score == pytest.approx(judgement.gate_score, abs=1e-4)  # of the serving form of the networks
    for curve, value, added in zip(reading.curves, reading.values, reading.contributions, strict=True):
        assert added == pytest.approx(np.interp(value, curve.points, curve.added), abs=0.05)


def test_rates_of_every_label_match_the_curves(bundle: Bundle) -> None:
    """Counted by hand from the rows of the fixture; what they add is what the score moves by between labels."""
    features, right = fitted_rows()
    _, small = logits(bundle.collaborator, features)
    rates = {each.label: each for each in label_rates(bundle)}
    for number, label in enumerate(bundle.label_names):
        given_N = small.argmax(1) == number
        for side, found in zip(right, (rates[label].small_accuracy, rates[label].large_accuracy), strict=True):
            assert found == pytest.approx((side[given_N].sum() + 10 * side.mean()) / (given_N.sum() + 10))
    assert [each.added for each in label_rates(bundle)] == sorted(each.added for each in rates.values())
    for row in range(10):
        reading = read_gate(bundle, features[row])
        assert reading is not None
        assert reading.answer == rates[bundle.label_names[small[row].argmax()]]
        named = zip(reading.curves, reading.contributions, strict=True)
        by_rates = [added for curve, added in named if curve.signal.name in ("small accuracy", "large accuracy")]
        assert reading.answer.added == pytest.approx(sum(by_rates))


def test_a_gate_without_curves_has_nothing_to_read(bundle: Bundle) -> None:
    plain = Bundle(**(vars(bundle) | {"policy": Policy(), "gate_head": None}))
    assert gate_curves(plain) == ()
    assert label_rates(plain) == ()
    assert read_gate(plain, np.ones(DIM, dtype=np.float32)) is None
