"""The draw that proves guarantees of single labels within units that may be kept (see `kcm.labelling.guarantees`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcm.labelling.agreement import Prefix
from kcm.labelling.draws import Arrays
from kcm.labelling.forecast import Forecaster
from kcm.labelling.guarantees import ClassDraw, ClassPromise, Guarantee, relevant
from kcm.labelling.guess import Guess
from kcm.labelling.purchases import Purchases

CLASS_DRAW = 3  # the number of the draw for guarantees of labels, after two for agreement
_OF_DRAW, _OF_PREFIX = ("answer_U", "ranked", "lengths", "drawn"), ("taught", "units", "differ")  # on disk


@dataclass(frozen=True, eq=False)
class BegunClasses:
    """A draw within the units of `prefix`, for those of the guarantees that are `pursued`, in their order."""

    prefix: Prefix
    draw: ClassDraw
    pursued: NDArray[np.bool_]

    def arrays(self) -> Arrays:
        """For `DrawFile`."""
        prefix = {name: np.asarray(getattr(self.prefix, name)) for name in _OF_PREFIX}
        draw = {name: getattr(self.draw, name) for name in _OF_DRAW}
        return draw | prefix | {"wrong_U": self.prefix.guess.wrong_U, "pursued": self.pursued}

    @classmethod
    def of(cls, arrays: Arrays) -> BegunClasses:
        """What `arrays` wrote."""
        draw = ClassDraw(*(arrays[name] for name in _OF_DRAW))
        guess = Guess(draw.answer_U, arrays["wrong_U"])
        taught, units, differ = (arrays[name] for name in _OF_PREFIX)
        return cls(Prefix(guess, taught, units, int(differ)), draw, arrays["pursued"])


def drawn_classes(
    prefix: Prefix,
    purchases: Purchases,
    forecaster: Forecaster,
    guarantees: Sequence[Guarantee],
    delta: float,
    seeds: Sequence[int],
) -> BegunClasses:
    """Draw within the kept units; nothing is bought yet.

    `seeds` are of a generator of its own: that of the job would repeat itself in a second start.
    """
    ranked, plan = forecaster.class_plan(prefix.guess, prefix.units, delta)
    most = purchases.oracle.affords(ranked[::-1]) // 2 if purchases.oracle.is_capped else len(ranked)
    pursued = forecaster.pursued()
    draw = plan.drawn(ranked, prefix.guess.answer_U, pursued, most, np.random.default_rng(seeds))
    return BegunClasses(prefix, draw, np.array([guarantee in pursued for guarantee in guarantees]))


def narrowed(
    begun: BegunClasses, purchases: Purchases, guarantees: Sequence[Guarantee], delta: float
) -> tuple[Prefix, tuple[ClassPromise, ...]]:
    """Buy the draw, then escalate the end of the ranking until every pursued guarantee is proved or the money ends."""
    prefix, draw = begun.prefix, begun.draw
    purchases.buy_in_bulk(purchases.affordable(draw.drawn[~purchases.asked_U[draw.drawn]]))
    pursued = [guarantee for guarantee, is_pursued in zip(guarantees, begun.pursued, strict=True) if is_pursued]
    free = prefix.units[~relevant(draw.answer_U, pursued)[prefix.units]]
    promises: tuple[ClassPromise, ...] = ()
    for length in (*draw.lengths.tolist(), 0):
        units = np.concatenate([free, draw.ranked[:length]])
        units = units[~purchases.asked_U[units]]
        prefix = Prefix(prefix.guess, prefix.taught, units, min(prefix.differ, purchases.rows(units)))
        rest = purchases.outside(units, prefix.guess)
        purchases.buy_in_bulk(purchases.affordable(rest))
        promises = draw.proved(guarantees, purchases.label_U, purchases.asked_U, purchases.copies_U, delta)
        proved = all(promise.holds for promise, is_pursued in zip(promises, begun.pursued, strict=True) if is_pursued)
        if proved or not purchases.asked_U[rest].all():
            break
    return prefix, promises
