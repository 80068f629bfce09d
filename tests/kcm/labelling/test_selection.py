"""`kcm.select_scored`: promises hold at their boundary, within the budget, and what is wrong is named."""

import doctest
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import hypergeom

import kcm
from kcm.labelling import selection
from kcm.labelling.selection import fewest_positives, select_scored

Bools = NDArray[np.bool_]


class Oracle:
    """Answers by row number, None for rows in `failed`; remembers the rows that it was asked about."""

    def __init__(self, positive: Bools, failed: Bools | None = None) -> None:
        self.positive, self.failed = positive, np.zeros(len(positive), bool) if failed is None else failed
        self.asked: list[int] = []

    def __call__(self, rows: NDArray[np.int64]) -> list[bool | None]:
        self.asked += rows.tolist()
        return [None if self.failed[row] else bool(self.positive[row]) for row in rows]


def separated(num_rows: int = 8000, rate: float = 0.04, seed: int = 0) -> tuple[NDArray[np.float64], Bools]:
    """Scores of a good proxy, and what the oracle says."""
    rng = np.random.default_rng(seed)
    positive = rng.random(num_rows) < rate
    return rng.normal(4.0 * positive, 1.0), positive


def hidden(rng: np.random.Generator) -> Bools:
    """300 positives come first; just too many to miss a tenth of all are spread far below them."""
    positive = np.arange(3000) < 300
    positive[rng.choice(np.arange(1000, 3000), 36, replace=False)] = True
    return positive


def impure(rng: np.random.Generator) -> Bools:
    """Of the first 1,000 rows 88% are positive, and few of the others."""
    return np.asarray(rng.random(3000) < np.where(np.arange(3000) < 1000, 0.88, 0.01))


@pytest.mark.parametrize(
    ("kind", "table", "calls"), [("recall", hidden, 300), ("precision", impure, 200)], ids=["recall", "precision"]
)
def test_promises_are_broken_at_most_delta_of_the_time(
    kind: str, table: Callable[[np.random.Generator], Bools], calls: int
) -> None:
    """100 tables on which the scores mislead, at delta .1 and up to noise."""
    broken = 0
    for seed in range(100):
        positive = table(np.random.default_rng([seed, 1]))
        found = select_scored(-np.arange(3000), Oracle(positive), delta=0.1, max_calls=calls, seed=seed, **{kind: 0.9})
        right = (found.selected & positive).sum()
        broken += right < 0.9 * (positive if kind == "recall" else found.selected).sum()
    assert broken <= 10 + 3 * np.sqrt(100 * 0.1 * 0.9)


def test_a_precision_returns_most_positives() -> None:
    scores, positive = separated()
    found = select_scored(scores, Oracle(positive), precision=0.9, delta=0.1, max_calls=500)
    assert positive[found.selected].mean() >= 0.9
    assert found.selected[positive].mean() > 0.9


def test_a_recall_returns_few_other_rows() -> None:
    """At most three rows for each positive, where all rows are twenty-five."""
    scores, positive = separated()
    found = select_scored(scores, Oracle(positive), recall=0.9, delta=0.1, max_calls=1000)
    assert found.selected[positive].mean() >= 0.9
    assert found.selected.sum() < 3 * positive.sum()
    assert not found.certificate.exact


@pytest.mark.parametrize("promise", ["precision", "recall"])
@pytest.mark.parametrize("max_calls", [1, 30, 400, 2000])
def test_the_budget_is_kept_and_no_row_is_asked_twice(promise: str, max_calls: int) -> None:
    scores, positive = separated(1500)
    oracle = Oracle(positive)
    found = select_scored(scores, oracle, max_calls=max_calls, **{promise: 0.9})  # type: ignore[arg-type]
    assert len(oracle.asked) == len(set(oracle.asked)) == found.certificate.bought <= max_calls
    assert set(oracle.asked) == set(np.flatnonzero(found.bought))


@pytest.mark.parametrize("promise", ["precision", "recall"])
def test_bought_rows_are_selected_by_what_the_oracle_said(promise: str) -> None:
    """A row without an answer is no positive for a precision, and is not lost for a recall."""
    scores, positive = separated(3000)
    failed = np.random.default_rng(1).random(3000) < 0.05
    found = select_scored(scores, Oracle(positive, failed), max_calls=500, **{promise: 0.9})  # type: ignore[arg-type]
    answered = found.bought & ~failed
    assert (found.selected[answered] == positive[answered]).all()
    assert (found.selected[found.bought & failed] == (promise == "recall")).all()
    assert found.certificate.failed == (found.bought & failed).sum() > 0


@pytest.mark.parametrize("promise", ["precision", "recall"])
def test_rows_never_bought_change_nothing(promise: str) -> None:
    scores, positive = separated(3000)
    options: dict[str, Any] = {promise: 0.9, "max_calls": 300}
    first = select_scored(scores, Oracle(positive), **options)
    second = select_scored(scores, Oracle(np.where(first.bought, positive, ~positive)), **options)
    assert (first.bought == second.bought).all()
    assert (first.selected == second.selected).all()


def test_only_the_order_of_the_scores_matters() -> None:
    scores, positive = separated(3000)
    first, second = (
        select_scored(each, Oracle(positive), recall=0.9, max_calls=300) for each in (scores, np.exp(scores / 3) - 7)
    )
    assert (first.selected == second.selected).all()


def test_positives_too_rare_for_the_budget_return_all_rows() -> None:
    """Five hidden positives cannot be excluded by 300 draws from 20,000 rows, so that a recall leaves few rows out."""
    scores, positive = separated(20_000, rate=0.002)
    found = select_scored(scores, Oracle(positive), recall=0.9, max_calls=300)
    assert found.selected.sum() > 15_000
    assert found.selected[positive].all()


def test_a_table_within_the_budget_is_bought() -> None:
    scores, positive = separated(200)
    found = select_scored(scores, Oracle(positive), precision=0.9, max_calls=200)
    assert (found.selected == positive).all()
    assert found.certificate.exact


def test_fewest_positives_is_the_smallest_that_keeps_delta() -> None:
    """Against the condition written out for every number of positives."""
    top, top_drawn, tail, tail_drawn, afforded, found, delta = 60, 25, 400, 150, 0, 4, 0.1

    def risk(enough: int) -> float:
        chances = []
        for positives in range(top + 1):
            errors = min((found + positives) // 9 + afforded + 1, tail)
            missed = hypergeom.cdf(afforded, tail, errors, tail_drawn)
            chances.append(missed * hypergeom.sf(enough - 1, top, positives, top_drawn))
        return float(max(chances))

    enough = fewest_positives(top, top_drawn, tail, tail_drawn, afforded, found, 0.9, delta)
    assert 0 < enough <= top_drawn
    assert risk(enough) <= delta < risk(enough - 1)


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ([], {"recall": 0.9}, "scores: expected at least one number"),
        ([0.1, np.nan], {"recall": 0.9}, "scores: expected finite numbers, got nan in row 1"),
        ([0.1], {}, "precision, recall: expected exactly one"),
        ([0.1], {"recall": 0.9, "precision": 0.9}, "precision, recall: expected exactly one"),
        ([0.1], {"recall": 1.0}, "recall: expected a number between 0 and 1, got 1.0"),
        ([0.1], {"recall": 0.9, "delta": 0}, "delta: expected a number between 0 and 1, got 0"),
        ([0.1], {"recall": 0.9, "max_calls": 0}, "max_calls: expected at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_named(scores: list[float], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_scored(scores, lambda rows: rows < 0, **options)


@pytest.mark.parametrize(
    ("answers", "message"), [([1, 0], "2 answers for 1 rows"), ([2], "expected 0, 1 or None for row 0, got 2")]
)
def test_answers_of_another_kind_are_refused(answers: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_scored([0.5], lambda rows: answers, recall=0.9)


def test_the_example_is_true() -> None:
    assert doctest.testmod(selection).failed == 0
    assert kcm.select_scored is select_scored
