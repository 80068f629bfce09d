"""What could be certified with rows that nobody has answered yet, and what would change that.

All figures assume the best case, in which nothing is lost: with fewer units nothing can be certified.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from kcm.certification.certificate import CertificateConfig
from kcm.certification.ledger import question_delta
from kcm.certification.pvalues import fewest_binomial
from kcm.certification.threshold_paths import TableMethod, fewest_net

Scope = Literal["global", "per_task"]
_STEP = 0.005  # step of the advised epsilons


@dataclass(frozen=True)
class Outlook:
    """The requested promise, in the scope that needs the fewest units.

    `num_units` is the number of independently drawn certify units, in the smallest task if every task has its own
    promise. `needed` is how many there must be, by the method that needs fewest. `epsilon` is the smallest loss, in
    steps of half a point, that these units could certify; None if there is none. `scopes` are the scopes in which the
    request could be certified.
    """

    scope: Scope
    num_units: int
    needed: int
    epsilon: float | None
    scopes: tuple[Scope, ...]

    @property
    def possible(self) -> bool:
        """Whether there are enough units."""
        return self.num_units >= self.needed

    @property
    def times_the_rows(self) -> float:
        """The factor by which the rows would have to grow; 1 if they suffice, infinite without any unit."""
        return max(1.0, self.needed / self.num_units) if self.num_units else math.inf


def outlook(
    units: Mapping[str, int], config: CertificateConfig, scopes: Sequence[Scope], spend: float | None = None
) -> Outlook:
    """The outlook for a look that may `spend` so much of delta, at certify rows with `units` by task.

    By default the first look at a question that does not grow.
    """
    spend = question_delta(config.delta, 1) if spend is None else spend
    standings = {scope: _standing(units, spend, scope) for scope in scopes}
    able = tuple(
        scope for scope, (have, delta) in standings.items() if have >= fewest(config.epsilon, delta, config.method)
    )

    def lacking(scope: Scope) -> float:
        have, delta = standings[scope]
        return fewest(config.epsilon, delta, config.method) / max(have, 1)

    best = min(standings, key=lacking)
    have, delta = standings[best]
    return Outlook(
        scope=best,
        num_units=have,
        needed=fewest(config.epsilon, delta, config.method),
        epsilon=smallest_epsilon(have, delta, config.method),
        scopes=able,
    )


def fewest(epsilon: float, delta: float, method: Literal["auto"] | TableMethod) -> int:
    """Fewest units that could certify `epsilon`, none of them lost; `auto` takes the better of the two methods.

    At epsilon 0 all units would have to be won, and only `net` credits wins.
    """
    if epsilon == 0 or method == "net":
        return fewest_net(epsilon, delta)
    by_regret = fewest_binomial(epsilon, delta)
    return by_regret if method == "regret" else min(by_regret, fewest_net(epsilon, delta))


def smallest_epsilon(num_units: int, delta: float, method: Literal["auto"] | TableMethod) -> float | None:
    """The smallest multiple of half a point below 1/2 that `num_units` units could certify; None if there is none."""
    steps = range(1, round(0.5 / _STEP))
    step = next((step for step in steps if fewest(step * _STEP, delta, method) <= num_units), None)
    return None if step is None else step * _STEP


def _standing(units: Mapping[str, int], delta: float, scope: Scope) -> tuple[int, float]:
    """The number of units that count, and the part of delta that each decision may spend."""
    if scope == "per_task":
        delta /= 1 + len(units)
    return (min(units.values()) if scope == "per_task" else sum(units.values())), delta
