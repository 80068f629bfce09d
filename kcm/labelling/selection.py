"""Select rows of a table by a score, with a promise of precision or recall, for at most so many calls of an oracle.

Shapes: N rows; M of them not bought by the pilot, in rank order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from kcm.certification.finite import afforded_errors, longest_prefix
from kcm.labelling.selection_plan import positive_rate, precision_plan, recall_plan

_PILOT = 0.1  # of the calls
_FIRST = 1 / 3  # of the pilot: drawn evenly over the logarithm of the rank
_LATER = 0.8  # share of the positives still to be bought that a decision counts on

Rows = NDArray[np.int64]
Answers = Sequence[bool | int | None] | NDArray[np.generic]


@dataclass(frozen=True)
class SelectionCertificate:
    """With probability at least 1 - `delta`, the `kind` (precision or recall) of the selection is at least `asked`.

    `exact` says that it needs no probability: each row is either bought, or selected for a recall. `drawn` rows were
    drawn for the test. `failed` rows got no answer from the oracle.
    """

    kind: str
    asked: float
    delta: float
    rows: int
    bought: int
    selected: int
    drawn: int
    failed: int
    exact: bool
    seed: int


@dataclass(frozen=True, eq=False)
class Selection:
    """Which rows are `selected` [N], and which of all rows were `bought` [N] from the oracle."""

    selected: NDArray[np.bool_]
    bought: NDArray[np.bool_]
    certificate: SelectionCertificate


def select_scored(
    scores: ArrayLike,
    oracle: Callable[[NDArray[np.int64]], Answers],
    *,
    precision: float | None = None,
    recall: float | None = None,
    delta: float = 0.05,
    max_calls: int = 1000,
    seed: int = 0,
) -> Selection:
    """Select rows so that precision, or recall, is at least this share, for at most `max_calls` calls of the oracle.

    Precision is the share of the selected rows that the oracle calls positive; as many positives as possible are
    selected. Recall is the share of the oracle's positives that are selected; as few other rows as possible are. Either
    holds with probability at least 1 - `delta` over the draw, for any scores and any number of positives. Nothing is
    assumed about the scores: poor ones return fewer positives, or more rows.

    Parameters
    ----------
    scores : numbers [N], larger for rows that are likelier positive; only their order matters
    oracle : from an array of row numbers to whether each is positive (bool or 0/1); None for a row without an answer,
        which is no positive for a precision, and is selected for a recall. Each row is asked at most once.
    precision, recall : the promise, one of the two
    delta : chance that the promise is false
    max_calls : the most rows that the oracle is asked about
    seed : of the draw; another seed is another look at the same table

    Raises ValueError for no rows, scores that are not finite, not exactly one promise, a promise or delta outside
    (0, 1), no calls, and answers that are neither 0, 1 nor None.

    Notes
    -----
    A pilot of a tenth of the calls shows how the rate of positives falls with the rank. It decides the numbers below,
    and is no part of the draws. B of its rows are positive.

    Precision p: n of the first K rows are drawn, and A errors are allowed. With x drawn errors afforded by
    `kcm.certification.finite`, the longest prefix with at most x drawn errors has at most A undrawn ones. It is
    selected if A <= (1 - p) D, with D the selected rows, bought positives included; else only bought positives are.
    The other calls buy the rows that follow.

    Recall r: m of the first L rows and n of the last R rows are drawn; L + R <= M. Let P be the unknown number of
    positives among the first L rows, and A(P) = floor((B + P) (1 - r) / r). If at least y rows drawn among the first L
    are positive, the longest suffix with at most x drawn positives is left out, and at most A(P) positives with it:

        max_P  P(Hyp(R, A(P) + x + 1, n) <= x)  P(Hyp(L, P, m) >= y)  <=  delta

    The first factor is the chance that some suffix hides more than A(P) (`kcm.certification.finite`); the draws are
    independent, so the product bounds the chance that both happen. If fewer than y are positive, or if no n is enough,
    all rows are selected but the bought negatives. The other calls buy selected rows to drop negatives among them.

    The setting is SUPG's (arXiv 2004.00827), whose bounds are asymptotic.

    Examples
    --------
    >>> import numpy as np
    >>> positive = np.arange(20_000) < 600
    >>> scores = -np.arange(20_000) + np.random.default_rng(0).normal(0, 50, 20_000)
    >>> chosen = select_scored(scores, lambda rows: positive[rows], recall=0.9, delta=0.1, max_calls=1000)
    >>> positives, rows = positive[chosen.selected].sum(), chosen.selected.sum()
    >>> bool(positives >= 540), bool(rows < 1000), bool(chosen.bought.sum() <= 1000)
    (True, True, True)
    """
    score_N = _checked(scores)
    if (precision is None) == (recall is None):
        raise ValueError("precision, recall: expected exactly one of them")
    for name, value in (("precision", precision), ("recall", recall), ("delta", delta)):
        if value is not None and not 0 < value < 1:
            raise ValueError(f"{name}: expected a number between 0 and 1, got {value}")
    if max_calls < 1:
        raise ValueError(f"max_calls: expected at least 1, got {max_calls}")
    job = _Job(score_N, oracle, max_calls, delta, np.random.default_rng(seed))
    if len(score_N) <= max_calls:
        job.buy(np.arange(len(score_N)))
        drawn, selected = 0, job.positive | (job.failed & (recall is not None))
    else:
        job.pilot(precision)
        drawn, selected = job.precise(precision) if precision is not None else job.complete(recall or 0.0)
    unbought = ~job.bought
    certificate = SelectionCertificate(
        kind="precision" if precision is not None else "recall",
        asked=precision or recall or 0.0,
        delta=delta,
        rows=len(score_N),
        bought=int(job.bought.sum()),
        selected=int(selected.sum()),
        drawn=drawn,
        failed=int(job.failed.sum()),
        exact=not (unbought & (selected if precision is not None else ~selected)).any(),
        seed=seed,
    )
    return Selection(selected, job.bought, certificate)


class _Job:
    """One table while it is bought."""

    def __init__(
        self,
        score_N: NDArray[np.float64],
        oracle: Callable[[Rows], Answers],
        max_calls: int,
        delta: float,
        rng: np.random.Generator,
    ) -> None:
        self._oracle, self._left, self._delta, self._rng = oracle, max_calls, delta, rng
        self.bought, self.positive, self.failed = (np.zeros(len(score_N), dtype=bool) for _ in range(3))
        shuffled = rng.permutation(len(score_N))  # ties are broken by chance
        self._ranked: Rows = shuffled[np.argsort(-score_N[shuffled], kind="stable")]
        self._p_N = np.full(len(score_N), 0.5)

    def buy(self, rows: Rows) -> None:
        """Ask the oracle about rows that were not bought."""
        if len(rows) == 0:
            return
        answers = list(self._oracle(rows))
        if len(answers) != len(rows):
            raise ValueError(f"oracle: {len(answers)} answers for {len(rows)} rows")
        for row, answer in zip(rows, answers, strict=True):
            if answer is not None and answer not in (0, 1):
                raise ValueError(f"oracle: expected 0, 1 or None for row {row}, got {answer!r}")
        self._left -= len(rows)
        self.bought[rows] = True
        self.failed[rows] = [answer is None for answer in answers]
        self.positive[rows] = [answer is not None and bool(answer) for answer in answers]

    def pilot(self, precision: float | None) -> None:
        """Buy a few rows in two steps, and forecast P(positive) of every rank from them.

        For a precision the second step passes over ranks that no plan reaches.
        """
        num_rows, size = len(self._ranked), int(_PILOT * self._left)
        weight = 1 / np.arange(1.0, num_rows + 1)
        for count in (int(_FIRST * size), size - int(_FIRST * size)):
            weight[self.bought[self._ranked]] = 0
            self.buy(self._ranked[self._rng.choice(num_rows, count, replace=False, p=weight / weight.sum())])
            rank = np.flatnonzero(self.bought[self._ranked])
            self._p_N = positive_rate(rank, self.positive[self._ranked[rank]], num_rows)
            weight = np.sqrt(self._p_N * (1 - self._p_N) / np.arange(1.0, num_rows + 1))
            if precision is not None:
                mean = np.cumsum(self._p_N) / np.arange(1.0, num_rows + 1)
                weight[int((mean >= precision).sum()) + self._left :] = 0

    def precise(self, share: float) -> tuple[int, NDArray[np.bool_]]:
        """The number of drawn rows, and a selection of this precision."""
        ranked, p_M = self._open()
        plan = precision_plan(p_M, int(self.positive.sum()), self._left, share, self._delta)
        length = num_drawn = allowed = 0
        if plan is not None:
            num_drawn, allowed = plan.drawn, plan.allowed
            places = self._draw(plan.length, num_drawn)
            self.buy(ranked[places])
            afforded = afforded_errors(plan.length, num_drawn, allowed, self._delta)
            length = longest_prefix(places, ~self.positive[ranked[places]], plan.length, afforded)
            later = _LATER * p_M[length : length + self._left].sum()
            if allowed > (1 - share) * (self._delivered(ranked[:length]).sum() + later):
                length = 0
        inside, following = (rows[~self.bought[rows]] for rows in (ranked[:length], ranked[length:]))
        reserve = len(inside) if len(inside) <= self._left // 2 else 0  # to buy the prefix if it may not be selected
        num_first = self._left - reserve
        self.buy(following[:num_first])
        if not self._allows(allowed, ranked[:length], share):
            self.buy(inside[: self._left])
            return num_drawn, self.positive.copy()
        self.buy(following[num_first:][: self._left])
        return num_drawn, self._delivered(ranked[:length])

    def complete(self, share: float) -> tuple[int, NDArray[np.bool_]]:
        """The number of drawn rows, and a selection of this recall."""
        ranked, p_M = self._open()
        num_bought = int(self.positive.sum())
        plan = recall_plan(p_M, num_bought, self._left, share, self._delta)
        if plan is None:
            return 0, ~self.bought | self.positive | self.failed
        enough = fewest_positives(
            plan.top, plan.top_drawn, plan.tail, plan.tail_drawn, plan.afforded, num_bought, share, self._delta
        )
        top = ranked[self._draw(plan.top, plan.top_drawn)]
        self.buy(top)
        if self.positive[top].sum() < enough:
            return len(top), ~self.bought | self.positive | self.failed
        tail = ranked[::-1]
        places = self._draw(plan.tail, plan.tail_drawn)
        drawn = tail[places]
        self.buy(drawn)
        num_left_out = longest_prefix(places, self.positive[drawn] | self.failed[drawn], plan.tail, plan.afforded)
        returned = tail[num_left_out:]
        self.buy(returned[~self.bought[returned]][: self._left])
        selected = self._delivered(returned)
        return len(top) + len(drawn), selected | self.failed

    def _allows(self, errors: int, prefix: Rows, share: float) -> bool:
        """Whether a precision of `share` allows so many errors, if the prefix and all bought positives are selected."""
        return errors <= (1 - Fraction(str(share))) * int(self._delivered(prefix).sum())

    def _open(self) -> tuple[Rows, NDArray[np.float64]]:
        """Rows [M] that are not bought, in rank order, and their P(positive)."""
        open_N = ~self.bought[self._ranked]
        return self._ranked[open_N], self._p_N[open_N]

    def _draw(self, length: int, count: int) -> Rows:
        """Places of a uniform draw without replacement, ascending."""
        return np.sort(self._rng.choice(length, count, replace=False))

    def _delivered(self, prefix: Rows) -> NDArray[np.bool_]:
        """Bought positives, and the rows of a prefix that were not bought."""
        selected = self.positive.copy()
        selected[prefix[~self.bought[prefix]]] = True
        return selected


def fewest_positives(
    top: int, top_drawn: int, tail: int, tail_drawn: int, afforded: int, num_bought: int, share: float, delta: float
) -> int:
    """The smallest y that satisfies the condition of a recall in `select_scored`; `top_drawn` + 1 if there is none.

    Only the largest P of every A(P) matters, since P(Hyp(L, P, m) >= y) grows with P. `num_bought` is B.
    """
    right, wrong = Fraction(str(share)).as_integer_ratio()
    wrong -= right
    most = wrong * (num_bought + top) // right
    allowed = np.arange(wrong * num_bought // right, most + 1)
    largest = np.minimum((right * (allowed + 1) - 1) // wrong - num_bought, top)
    hidden = np.where(
        allowed + afforded + 1 <= tail,
        hypergeom.cdf(afforded, tail, np.minimum(allowed + afforded + 1, tail), tail_drawn),
        np.where(tail - tail_drawn <= allowed, 0.0, 1.0),
    )
    risky = hidden > delta
    hidden, largest = hidden[risky], largest[risky]
    low, high = 0, top_drawn + 1
    while low < high:
        middle = (low + high) // 2
        if (hidden * hypergeom.sf(middle - 1, top, largest, top_drawn) <= delta).all():
            high = middle
        else:
            low = middle + 1
    return low


def _checked(scores: ArrayLike) -> NDArray[np.float64]:
    score_N = np.asarray(scores, dtype=np.float64)
    if score_N.ndim != 1 or len(score_N) == 0:
        raise ValueError(f"scores: expected at least one number in one dimension, got shape {score_N.shape}")
    if len(bad := np.flatnonzero(~np.isfinite(score_N))):
        raise ValueError(f"scores: expected finite numbers, got {score_N[bad[0]]} in row {bad[0]}")
    return score_N
