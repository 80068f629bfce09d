"""Precision and recall of single labels over one finite table.

Promises of a label c, with the oracle as reference: precision is the share of rows delivered as c that the oracle calls
c, recall the share of the oracle's rows of c that are delivered as c. Rows that were bought are right.

At most m nested sets of kept units are fixed before the draw (prefixes of one ranking). Units are drawn uniformly
within strata: one stratum for each promised label, by the small model's answer, and one for all other answers. Given
how many of a stratum in a prefix were drawn, these are uniform there, so that `missed_errors` bounds its undrawn errors
at a share of delta / m. All bounds hold together, so any of the prefixes may be delivered. Each promise is false
with probability at most delta; the promises are issued together only if every one passes.

Precision: the errors of stratum c at most (1 - p) times the rows delivered as c.
Recall: missed rows at most (1 - r) / r times those found. Half of the share bounds the rows of c in other strata, half
the errors of stratum c: what is left of it is found, beside the bought rows of c.
A unit without a usable answer counts as an error of every promise. Shapes: U units, of `copies_U` equal rows each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc

from kcm.certification.finite import fewest_drawn, missed_errors
from kcm.config import Config
from kcm.errors import ConfigError
from kcm.labelling.purchases import Units
from kcm.large.prompts import matching_label

MAX_COPIES = 2  # units with more rows are bought: one call makes all of them right
_LENGTHS = (1.0, 0.75, 0.5)  # of the longest prefix
_POWER = 0.8  # chance that the longest prefix holds, as planned
_NUM_LENGTHS = 12
_ERRORS = np.array([0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 27])
_OWN_SLACK = (1.3, 2.0, 4.0)  # candidates for the bound on a label's errors, in expected ones
_REST = -2  # the stratum of answers that no promise names


class ClassPromise(Config):
    """One promise about a label: as requested, and as proved."""

    kind: str
    label: str
    asked: float
    proved: float
    holds: bool


@dataclass(frozen=True)
class Guarantee:
    """`kind` (precision or recall) of the label with this code is to be at least `share`."""

    kind: str
    name: str
    code: int
    share: float

    @classmethod
    def parsed(cls, texts: Sequence[str], label_names: Sequence[str]) -> tuple[Guarantee, ...]:
        """From texts such as `precision:spam=.95`. Raises ConfigError for any other, and for unknown labels."""
        return tuple(cls._of(text, label_names) for text in texts)

    @classmethod
    def _of(cls, text: str, label_names: Sequence[str]) -> Guarantee:
        left, _, number = text.rpartition("=")
        kind, _, name = left.partition(":")
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if kind not in ("precision", "recall") or not name or not 0 < share < 1:
            hint = "Write precision:LABEL=.95 or recall:LABEL=.9, with a share between 0 and 1"
            raise ConfigError(f"cannot read {text!r}", where="guarantee", hint=hint)
        code = matching_label(name.strip(), label_names)
        if code is None:
            shown = ", ".join(label_names[:20])
            raise ConfigError(f"{name!r} in {text!r} is not a label", where="guarantee", hint=f"Labels: {shown}")
        return cls(kind, label_names[code], code, share)


@dataclass(frozen=True, eq=False)
class ClassDraw:
    """Fixed before the labels of `drawn` are known: prefixes of `ranked` [M] of these `lengths`, the longest first."""

    answer_U: Units
    ranked: Units
    lengths: Units
    drawn: Units

    def proved(
        self, guarantees: Sequence[Guarantee], label_U: Units, asked_U: NDArray[np.bool_], copies_U: Units, delta: float
    ) -> tuple[ClassPromise, ...]:
        """What is proved of the table as it stands; `label_U` are the oracle's answers, negative for none."""
        bounds = _Bounds(self, guarantees, label_U, asked_U, copies_U, delta)
        promises = []
        for guarantee in guarantees:
            share = max(bounds.share(guarantee, int(length)) for length in (*self.lengths, 0))
            shares = {"asked": guarantee.share, "proved": math.floor(10**6 * share) / 10**6}
            holds = share >= Fraction(str(guarantee.share))
            promises.append(ClassPromise(kind=guarantee.kind, label=guarantee.name, holds=holds, **shares))
        return tuple(promises)


class _Bounds:
    """Bounds on rows, for every prefix of a draw."""

    def __init__(
        self,
        draw: ClassDraw,
        guarantees: Sequence[Guarantee],
        label_U: Units,
        asked_U: NDArray[np.bool_],
        copies_U: Units,
        delta: float,
    ) -> None:
        self._draw, self._label, self._copies = draw, label_U, copies_U
        self._delta = delta / max(1, len(draw.lengths))
        self._stratum = _strata(draw.answer_U, guarantees)
        self._is_drawn = np.isin(np.arange(len(label_U)), draw.drawn)
        self._open = ~asked_U & ~self._is_drawn
        self._bought = label_U >= 0

    def share(self, guarantee: Guarantee, length: int) -> Fraction:
        """A lower bound on precision or recall, from the bounds of one prefix."""
        code, answer = guarantee.code, self._draw.answer_U
        prefix = self._draw.ranked[:length]
        covered = np.zeros(len(answer), dtype=bool)
        covered[prefix] = self._open[prefix]
        own, exact = answer == code, self._rows(self._bought & (self._label == code))
        bare = ~self._bought & ~covered  # nothing is known of these answers
        in_own = prefix[answer[prefix] == code]
        if guarantee.kind == "precision":
            errors = self._missed(in_own, self._label != code, self._delta) + self._rows(bare & own)
            return _ratio(exact + self._rows(~self._bought & own) - errors, errors)
        others = prefix[answer[prefix] != code]
        parts = [others[self._stratum[others] == stratum] for stratum in np.unique(self._stratum[others])]
        lost = ~self._bought | (self._label == code)
        missed = sum(self._missed(part, lost, self._delta / 2 / len(parts)) for part in parts)
        wrong = self._missed(in_own, self._label != code, self._delta / 2)
        return _ratio(exact + max(0, self._rows(covered & own) - wrong), missed + self._rows(bare & ~own))

    def _missed(self, units: Units, error_U: NDArray[np.bool_], delta: float) -> int:
        """Upper bound on the rows of undrawn errors among units of one stratum in a prefix."""
        drawn, rest = units[self._is_drawn[units]], units[~self._is_drawn[units]]
        errors = missed_errors(len(units), len(drawn), int(error_U[drawn].sum()), delta) if len(units) else 0
        return int(np.sort(self._copies[rest])[::-1][:errors].sum())

    def _rows(self, units: NDArray[np.bool_]) -> int:
        return int(self._copies[units].sum())


@dataclass(frozen=True)
class ClassPlan:
    """Draw `sizes` of each stratum among the first `length` units of the ranking; `calls` is what all of it takes."""

    length: int
    sizes: dict[int, int]
    calls: float

    def drawn(
        self, ranked: Units, answer_U: Units, guarantees: Sequence[Guarantee], most: int, rng: np.random.Generator
    ) -> ClassDraw:
        """The draw, of at most `most` units."""
        prefix = ranked[: self.length]
        stratum = _strata(answer_U, guarantees)[prefix]
        scale = min(1.0, most / max(1, sum(self.sizes.values())))
        parts = [
            rng.choice(prefix[stratum == code], math.floor(scale * size), replace=False)
            for code, size in self.sizes.items()
        ]
        lengths = [round(share * self.length) for share in _LENGTHS] if self.length else []
        drawn = np.concatenate([*parts, np.empty(0, np.int64)]).astype(np.int64)
        return ClassDraw(answer_U, ranked, np.array(lengths, dtype=np.int64), drawn)


def relevant(answer_U: Units, guarantees: Sequence[Guarantee]) -> NDArray[np.bool_]:
    """Units [U] that matter to a promise: answers that are a promised label, and all units for a recall."""
    if any(guarantee.kind == "recall" for guarantee in guarantees):
        return np.ones(len(answer_U), dtype=bool)
    return np.isin(answer_U, [guarantee.code for guarantee in guarantees])


def too_rare(guarantees: Sequence[Guarantee], label_B: Units) -> tuple[Guarantee, ...]:
    """Recalls of labels that none of the bought units has: no draw of this kind is expected to find one."""
    return tuple(
        guarantee for guarantee in guarantees if guarantee.kind == "recall" and not (label_B == guarantee.code).any()
    )


def class_plan(
    ranked: Units,
    answer_U: Units,
    wrong_U: NDArray[np.float64],
    guarantees: Sequence[Guarantee],
    label_B: Units,
    delta: float,
) -> ClassPlan:
    """The plan with the fewest expected calls among the relevant units `ranked`, the surest first.

    `label_B` are the oracle's answers so far. A forecast: it decides what is bought, never what is proved.
    """
    num_units = len(ranked)
    best = ClassPlan(0, {}, float(num_units))
    answer, wrong = answer_U[ranked], wrong_U[ranked]
    stratum, share = _strata(answer, guarantees), delta / len(_LENGTHS)
    for length in np.unique(np.linspace(0, num_units, _NUM_LENGTHS + 1).astype(np.int64))[:0:-1].tolist():
        sizes: dict[int, int] = {}
        inside = np.arange(num_units) < length
        for guarantee in guarantees:
            p = _probability(guarantee.code, answer, wrong, label_B)
            exact = float((label_B == guarantee.code).sum() + p[~inside].sum())
            own = inside & (answer == guarantee.code)
            size, errors = int(own.sum()), float(wrong[own].sum())
            if guarantee.kind == "precision":
                need = {guarantee.code: _needed(size, errors, (1 - guarantee.share) * (exact + size), share)}
            else:
                parts = {int(s): inside & (stratum == s) for s in np.unique(stratum[inside & ~own])}
                expected = {s: (int(part.sum()), float(p[part].sum())) for s, part in parts.items()}
                need = _recall_sizes(guarantee, size, errors, exact, expected, share)
            sizes |= {s: max(n, sizes.get(s, 0)) for s, n in need.items()}
        calls = float(sum(sizes.values()) + num_units - length)
        fits = all(n <= int((stratum[:length] == s).sum()) for s, n in sizes.items())
        if fits and calls < best.calls:
            best = ClassPlan(length, sizes, calls)
    return best


def _recall_sizes(
    guarantee: Guarantee,
    size: int,
    errors: float,
    exact: float,
    expected: dict[int, tuple[int, float]],
    share: float,
) -> dict[int, int]:
    """The cheapest sizes for a recall, over how closely the errors of its own stratum are bounded."""
    total = sum(missed for _, missed in expected.values())
    plans = []
    for own_errors in (size, *(math.ceil(slack * errors) + 1 for slack in _OWN_SLACK)):
        right = exact + max(0, size - own_errors)
        allowed = (1 - guarantee.share) / guarantee.share * right
        plan = {guarantee.code: _needed(size, errors, own_errors, share / 2)}
        for s, (count, missed) in expected.items():
            part = missed / total if total > 0 else 1 / len(expected)
            plan[s] = _needed(count, missed, allowed * part, share / 2 / len(expected))
        plans.append(plan)
    return min(plans, key=lambda plan: sum(plan.values()))


def _needed(num_units: int, errors: float, allowed: float, delta: float) -> int:
    """The fewest draws that should prove at most `allowed` undrawn errors; more than `num_units` if none do."""
    allowed = math.floor(allowed)
    if num_units <= allowed or num_units == 0:
        return 0
    drawn = fewest_drawn(num_units, _ERRORS, allowed, delta)
    passes = (drawn <= num_units) & (gammaincc(_ERRORS + 1.0, errors * drawn / num_units) >= _POWER)
    return int(drawn[passes].min(initial=num_units + 1))


def _probability(code: int, answer: Units, wrong: NDArray[np.float64], label_B: Units) -> NDArray[np.float64]:
    """P(the oracle says `code`): a wrong answer is another label in proportion to how often it was bought."""
    rate = np.array([(label_B == c).mean() for c in range(int(answer.max(initial=0)) + 1)])
    other = (label_B == code).mean() / np.maximum(1 - rate[answer], 1e-9)
    return np.asarray(np.where(answer == code, 1 - wrong, wrong * np.minimum(1.0, other)))


def _strata(answer_U: Units, guarantees: Sequence[Guarantee]) -> Units:
    return np.where(np.isin(answer_U, [guarantee.code for guarantee in guarantees]), answer_U, _REST)


def _ratio(right: int, wrong: int) -> Fraction:
    """right / (right + wrong); 1 without rows."""
    return Fraction(right, right + wrong) if right + wrong else Fraction(1)
