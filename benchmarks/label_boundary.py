"""Tables at the boundary of the promise of `kcm label`: each has as many errors as its test just fails to see.

A certificate keeps a prefix of K units if at most x* of the n drawn ones are errors. The table that breaks it most
often has A + x* + 1 errors among these K. A dry run with the same seed reads K, n and x*. Then the labels of rows that
nobody had asked for before the draw are replaced: all are right but A + x* + 1, which lie early in the ranking, spread
over it, or in one cluster. They are chosen without a look at the draw, so at most delta of the tables may break the
promise, and about delta of them should.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

import kcm.labelling.purchases
from kcm.labelling.agreement import TestedDraw
from kcm.labelling.draws import DrawFile
from kcm.labelling.forecast import Promise
from kcm.labelling.guess import Guess
from kcm.labelling.purchases import FAILED
from kcm.labelling.rounds import Rounds
from kcm.labelling.schedule import Schedule
from kcm.labelling.scored import label_scored

NUM_ROWS, TARGET, DELTA = 1000, 0.9, 0.05
CAPPED_CALLS = 120  # that a second test begins after
FAILURES = 0.01  # share of the rows without a usable answer, in tables with failures
SHAPES = ("early", "spread", "clustered")
KINDS = ("plain", "ties", "failures", "duplicates", "second test")
SCHEDULE = Schedule(pilot=50, growth=0.5)


@dataclass
class Oracle:
    """Answers by row number; remembers the rows of every call."""

    answers: np.ndarray
    asked: list[np.ndarray] = field(default_factory=list)

    def __call__(self, rows: np.ndarray) -> list[int | None]:
        self.asked.append(np.asarray(rows))
        return [None if answer == FAILED else int(answer) for answer in self.answers[rows]]

    def open_before(self, num_calls: int) -> np.ndarray:
        """Which rows [N] the first calls did not ask for."""
        open_ = np.ones(len(self.answers), dtype=bool)
        open_[[row for rows in self.asked[:num_calls] for row in rows]] = False
        return open_


@dataclass(frozen=True)
class World:
    """Chances [N] that the small model is wrong, copies [N] of every unit, and what the oracle answers by default [N].

    The small model always answers 1.
    """

    wrong: np.ndarray
    copies: np.ndarray
    answers: np.ndarray


def drawn(kind: str, rng: np.random.Generator) -> World:
    """A table whose proxy is calibrated."""
    wrong = rng.permutation(np.linspace(0.005, 0.3, NUM_ROWS))
    if kind == "ties":
        wrong = np.ceil(wrong * 20) / 20
    copies = np.ones(NUM_ROWS, dtype=np.int64)
    if kind == "duplicates":
        copies = rng.choice([1, 2, 5, 60], size=NUM_ROWS, p=[0.5, 0.44, 0.05, 0.01])
    answers = (rng.random(NUM_ROWS) >= wrong).astype(np.int64)
    if kind == "failures":
        answers[rng.random(NUM_ROWS) < FAILURES] = FAILED
    return World(wrong, copies, answers)


class Fixed:
    """A small side that learns nothing."""

    def __init__(self, wrong: np.ndarray) -> None:
        self._wrong = wrong

    def fit(self, units: np.ndarray, labels: np.ndarray) -> Guess:
        return Guess(np.ones(len(self._wrong), dtype=np.int64), self._wrong)


@dataclass(frozen=True)
class Job:
    """One labelled table: labels [N], the bound on rows that differ, and the first draw.

    Of the first `ranked` units `drawn` were drawn, `afforded` errors were allowed among these, and `allowed` among the
    others; units with more than `copies` copies were bought. `open` [N] marks units that nobody had asked for before.
    """

    labels: np.ndarray
    most_differ: int
    ranked: int
    drawn: int
    afforded: int
    allowed: int
    copies: int
    open: np.ndarray


def by_scores(world: World, oracle: Oracle, seed: int) -> Job:
    """The table labelled by `label_scored`."""
    probabilities = np.column_stack([world.wrong, 1 - world.wrong])
    found = label_scored(probabilities, oracle, target=TARGET, delta=DELTA, seed=seed)
    certificate = found.certificate
    allowed = certificate.most_differ - certificate.failed
    draw = certificate.draws[0] if certificate.draws else None
    if draw is None:
        return Job(found.labels, certificate.most_differ, 0, 0, 0, allowed, 1, oracle.open_before(0))
    num_calls = max(call for call, rows in enumerate(oracle.asked) if len(rows) == draw.drawn)  # of the draw
    before = oracle.open_before(num_calls)
    return Job(found.labels, certificate.most_differ, draw.ranked, draw.drawn, draw.afforded, allowed, 1, before)


class Halves:
    """Two looks, each with half of delta."""

    salt = ()

    def forecast(self, *, again: bool = False) -> float:
        """Either of them."""
        return DELTA / 2

    spend = forecast


class Capped(kcm.labelling.purchases.Oracle):
    """Codes of labels from an `Oracle`, each paid once, `calls` in all; None: without a cap."""

    def __init__(self, oracle: Oracle, calls: int | None) -> None:
        super().__init__()
        self._oracle, self._calls, self.is_capped = oracle, calls, calls is not None

    def __call__(self, units: np.ndarray) -> np.ndarray:
        return np.array([FAILED if label is None else label for label in self._oracle(units)])

    def affords(self, units: np.ndarray) -> int:
        """How many of these units, in order, the calls that are left pay for."""
        if self._calls is None:
            return len(units)
        is_open = self._oracle.open_before(len(self._oracle.asked))
        left = self._calls - int((~is_open).sum())
        return int(np.searchsorted(np.cumsum(is_open[units]), left, side="right"))

    def paid(self, units: np.ndarray) -> np.ndarray:
        """Those of the units that were asked for."""
        return units[~self._oracle.open_before(len(self._oracle.asked))[units]]


def by_rounds(world: World, oracle: Oracle, seed: int, calls: int | None = None, **more: Any) -> Job:
    """The table labelled by the rounds alone, which know of copies."""
    promise, capped = Promise(TARGET, DELTA), Capped(oracle, calls)
    found = Rounds(world.copies, Fixed(world.wrong), capped, promise, SCHEDULE, seed, **more).run()
    copies = found.forecasts[-1].copies if found.forecasts else 1
    test = found.tests[-1] if found.tests else TestedDraw(ranked=0, drawn=0, afforded=0, wrong=0, kept=0)
    drawn = [call for call, rows in enumerate(oracle.asked) if len(rows) == test.drawn]
    before = oracle.open_before(drawn[-1] if drawn else 0)
    allowed = found.allowed // copies
    return Job(found.answer_U, found.differ, test.ranked, test.drawn, test.afforded, allowed, copies, before)


def by_two_looks(world: World, oracle: Oracle, seed: int) -> Job:
    """A job with too little money, started again with enough: the second draw is at the boundary."""
    with tempfile.TemporaryDirectory() as folder:
        more = {"draws": DrawFile(Path(folder)), "looks": Halves()}
        by_rounds(world, oracle, seed, CAPPED_CALLS, **more)
        return by_rounds(world, oracle, seed, NUM_ROWS, **more)


LABELLED: dict[str, Callable[[World, Oracle, int], Job]] = {
    "plain": by_scores,
    "ties": by_scores,
    "failures": by_scores,
    "duplicates": by_rounds,
    "second test": by_two_looks,
}


def placed(shape: str, num_ranked: int, num_errors: int, rng: np.random.Generator) -> np.ndarray:
    """Ranks of the errors among the first `num_ranked`."""
    if shape == "early":
        return np.arange(num_errors)
    if shape == "spread":
        return np.linspace(0, num_ranked - 1, num_errors).round().astype(int)
    start = int(rng.integers(num_ranked - num_errors + 1))
    return np.arange(start, start + num_errors)


def at_boundary(world: World, dry: Job, shape: str, rng: np.random.Generator) -> np.ndarray:
    """The answers [N] of the table at the boundary of the first draw of `dry`."""
    ranked = np.flatnonzero(dry.open & (world.copies <= dry.copies))
    ranked = ranked[np.lexsort((rng.random(len(ranked)), world.wrong[ranked]))][: dry.ranked]
    failed = world.answers[ranked] == FAILED  # errors that the table has in any case
    num_errors = max(0, dry.allowed + dry.afforded + 1 - int(failed.sum()))
    heavy = ranked[~failed & (world.copies[ranked] == dry.copies)]
    places = heavy if len(heavy) >= num_errors else ranked[~failed]
    answers = np.where(dry.open & (world.answers != FAILED), 1, world.answers)
    answers[places[placed(shape, len(places), min(len(places), num_errors), rng)]] = 0
    return answers


def is_broken(found: Job, world: World, answers: np.ndarray) -> bool:
    """Whether more rows differ than the certificate says; a row without an answer differs."""
    return int(world.copies[found.labels != answers].sum()) > found.most_differ


def broken(kind: str, shape: str, seed: int) -> bool:
    """Whether one table at the boundary breaks its promise."""
    rng = np.random.default_rng([seed, KINDS.index(kind), SHAPES.index(shape)])
    world = drawn(kind, rng)
    dry = LABELLED[kind](world, Oracle(world.answers), seed)
    if dry.drawn == 0:
        return False
    answers = at_boundary(world, dry, shape, rng)
    return is_broken(LABELLED[kind](world, Oracle(answers), seed), world, answers)


def measured(num_tables: int) -> Iterator[dict[str, Any]]:
    """`num_tables` tables in all, of every kind and shape in turn: how many broke their promise, of which kind."""
    cells = list(product(KINDS, SHAPES))
    counts: Counter[tuple[str, str]] = Counter()
    tables: Counter[tuple[str, str]] = Counter()
    for number in range(num_tables):
        seed, cell = divmod(number, len(cells))
        counts[cells[cell]] += int(broken(*cells[cell], seed))
        tables[cells[cell]] += 1
        if number % 150 == 149 or number == num_tables - 1:
            yield _share("all", counts.total(), number + 1)
    for kind in KINDS:
        yield _share(kind, *(sum(each[kind, shape] for shape in SHAPES) for each in (counts, tables)))
    for shape in SHAPES:
        yield _share(shape, *(sum(each[kind, shape] for kind in KINDS) for each in (counts, tables)))


def _share(tables: str, num_broken: int, num_tables: int) -> dict[str, Any]:
    """A row of figures with the 95% interval of Clopper and Pearson."""
    share = binomtest(num_broken, num_tables).proportion_ci() if num_tables else None
    ends = {"low": round(float(share.low), 4), "high": round(float(share.high), 4)} if share else {}
    return {"cell": "boundary", "kind": tables, "delta": DELTA, "broken": num_broken, "tables": num_tables} | ends
