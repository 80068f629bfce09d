"""Precision and recall of labels: false at most as often as delta says, cheap, and named if they are out of reach."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from kcm.errors import ConfigError
from kcm.labelling.certificate import Labelled
from kcm.labelling.forecaster import Promise
from kcm.labelling.guarantees import Guarantee, class_plan, too_rare
from kcm.labelling.looks import DrawFile
from kcm.labelling.plan import Schedule
from kcm.labelling.purchases import FAILED
from kcm.labelling.rounds import Rounds
from tests.kcm.labelling.test_rounds import Asked, Counting, Fixed

NAMES = ("ham", "spam", "eggs")
Ints = NDArray[np.int64]


def table(seed: int, *, rate: float = 0.1, early: bool = False) -> tuple[Ints, Ints, NDArray[np.float64]]:
    """Truth, answers and P(wrong) of 2,000 units; with `early`, the surest answers err far more than they claim."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, 2000, p=[0.5, 0.3, 0.2])
    wrong = rng.beta(10 * rate, 10 * (1 - rate), 2000)
    errs = rng.random(2000) < (np.where(wrong < np.quantile(wrong, 0.3), 3 * rate, 0) if early else wrong)
    return truth, np.where(errs, (truth + rng.integers(1, 3, 2000)) % 3, truth), wrong


def shares(truth: Ints, delivered: Ints, copies: Ints, code: int = 1) -> dict[str, float]:
    right = copies[(truth == code) & (delivered == code)].sum()
    return {
        "precision": right / copies[delivered == code].sum(),
        "recall": right / copies[truth == code].sum(),
    }


@pytest.mark.parametrize("early", [False, True])
def test_a_proved_share_is_rarely_too_high(early: bool) -> None:
    """In 300 tables, with copies and failures, each share is proved too high in at most a tenth, up to noise.

    The draw is the planned one, so that bounds are as tight as they come; every table is at its own boundary, since the
    proved share itself is compared with the true one.
    """
    guarantees = Guarantee.parsed(["precision:spam=.9", "recall:spam=.8"], NAMES)
    too_high = {"precision": 0, "recall": 0}
    truth, answer, wrong = table(0, early=early)
    plan = class_plan(np.argsort(wrong), answer, wrong, guarantees, truth[:200], 0.1)
    for seed in range(300):
        rng = np.random.default_rng([seed, 1])
        truth, answer, wrong = table(seed, early=early)
        copies = rng.integers(1, 3, 2000)
        draw = plan.drawn(np.argsort(wrong), answer, guarantees, 2000, rng)
        label = np.full(2000, FAILED)
        label[draw.drawn] = np.where(rng.random(len(draw.drawn)) < 0.01, FAILED, truth[draw.drawn])
        rest = draw.ranked[draw.lengths[0] :]
        label[rest] = truth[rest]  # escalated
        asked = np.isin(np.arange(2000), np.concatenate([draw.drawn, rest]))
        actual = shares(truth, np.where(label >= 0, label, answer), copies)
        for found in draw.proved(guarantees, label, asked, copies, 0.1):
            too_high[found.kind] += found.proved > actual[found.kind]
    assert max(too_high.values()) <= 30 + 3 * np.sqrt(300 * 0.1 * 0.9)


def labelled(seed: int, *texts: str, target: float | None = None, **more: object) -> tuple[Labelled, Ints]:
    truth, answer, wrong = table(seed)
    promise = Promise(target, 0.1, guarantees=Guarantee.parsed(texts, NAMES))
    copies = np.ones(2000, dtype=np.int64)
    job = Rounds(copies, Fixed(answer, wrong), Asked(truth.__getitem__), promise, Schedule(100, 0.5), seed, **more)  # type: ignore[arg-type]
    return job.run(), truth


def test_guarantees_hold_and_save_calls() -> None:
    """Both promises are proved, and true, for at most 60% of the calls."""
    found, truth = labelled(0, "precision:spam=.9", "recall:spam=.9")
    assert found.certified
    assert [each.holds for each in found.guarantees] == [True, True]
    actual = shares(truth, found.answer_U, np.ones(2000, dtype=np.int64))
    assert all(actual[each.kind] >= each.proved >= each.asked for each in found.guarantees)
    assert found.bought_U.mean() < 0.6


def test_precision_leaves_other_labels_alone() -> None:
    """Answers of other labels need no call beyond the pilot and its rounds."""
    found, truth = labelled(1, "precision:spam=.95")
    assert found.certified
    assert shares(truth, found.answer_U, np.ones(2000, dtype=np.int64))["precision"] >= 0.95
    assert found.bought_U.mean() < 0.4


def test_a_target_beside_guarantees_is_kept_too() -> None:
    found, truth = labelled(2, "recall:eggs=.9", target=0.95)
    assert found.certified
    assert found.differ <= 100
    assert (found.answer_U != truth).sum() <= 100
    assert shares(truth, found.answer_U, np.ones(2000, dtype=np.int64), code=2)["recall"] >= 0.9


def test_little_money_proves_less() -> None:
    """A budget far below the plan is kept, and the promise is said to fail."""
    truth, answer, wrong = table(3)
    oracle = Counting(truth, calls=150)
    promise = Promise(None, 0.1, guarantees=Guarantee.parsed(["recall:spam=.98"], NAMES))
    copies = np.ones(2000, dtype=np.int64)
    found = Rounds(copies, Fixed(answer, wrong), oracle, promise, Schedule(100, 0.5), 0).run()
    assert oracle.asked.sum() <= 150
    assert not found.certified
    assert 0 <= found.guarantees[0].proved <= shares(truth, found.answer_U, copies)["recall"]


def test_a_rare_label_is_named_after_the_pilot() -> None:
    """A recall of a label that no bought unit has is given up: named in the forecast, and not paid for."""
    truth, answer, wrong = table(4)
    truth, answer = truth % 2, answer % 2
    promise = Promise(None, 0.1, guarantees=Guarantee.parsed(["recall:eggs=.9"], NAMES))
    copies = np.ones(2000, dtype=np.int64)
    job = Rounds(copies, Fixed(answer, wrong), Asked(truth.__getitem__), promise, Schedule(100, 0.5), 0)
    found = job.run()
    assert [each.name for each in found.forecasts[0].rare] == ["eggs"]
    assert found.bought_U.sum() == 100
    assert not found.certified
    assert too_rare(promise.guarantees, np.array([0, 2])) == ()


def test_a_killed_draw_is_finished_not_redrawn(tmp_path: Path) -> None:
    """A second start buys the units of the first one's draw, and ends with the same labels and proofs."""
    draws = DrawFile(tmp_path)
    first, truth = labelled(5, "precision:spam=.9", draws=draws)
    _, answer, _ = table(5)
    other = Fixed(answer, np.random.default_rng(9).random(2000))  # a model that would rank anew
    promise = Promise(None, 0.1, guarantees=Guarantee.parsed(["precision:spam=.9"], NAMES))
    copies = np.ones(2000, dtype=np.int64)
    job = Rounds(copies, other, Asked(truth.__getitem__), promise, Schedule(100, 0.5), 77, draws=draws)
    again = job.run()
    np.testing.assert_array_equal(first.bought_U, again.bought_U)
    assert first.guarantees == again.guarantees


@pytest.mark.parametrize("text", ["spam=.9", "precision:spam", "f1:spam=.9", "recall:spam=90", "recall:=.9"])
def test_what_is_no_guarantee_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="cannot read") as caught:
        Guarantee.parsed([text], NAMES)
    assert "precision:LABEL=.95" in str(caught.value)


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(ConfigError, match="'spma'"):
        Guarantee.parsed(["recall:spma=.9"], NAMES)
    assert Guarantee.parsed(["recall: SPAM=.9"], NAMES)[0].name == "spam"
