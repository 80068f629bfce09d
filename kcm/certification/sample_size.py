"""What could be certified with rows that nobody has answered yet, and what would change that.

The figures are those of the best case, in which nothing is lost: fewer units certify nothing whatever the models say.
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
_STEP = 0.005  # epsilons are advised in such steps


@dataclass(frozen=True)
class Outlook:
    """The promise that was asked for, in the scope that needs the fewest units.

    `num_units` independently drawn certify units there are, of the smallest task where every task is promised it, and
    at least `needed` must be, the fewest of `by_method`. `epsilon` is the smallest, to half a point, that these units
    could certify; None where none could. `scopes` are those that could certify something as it was asked for.
    """

    scope: Scope
    num_units: int
    by_method: Mapping[TableMethod, int]
    epsilon: float | None
    scopes: tuple[Scope, ...]

    @property
    def needed(self) -> int:
        """The units that the method needs which needs fewest."""
        return min(self.by_method.values())

    @property
    def possible(self) -> bool:
        """Whether there are units enough."""
        return self.num_units >= self.needed

    @property
    def times_the_rows(self) -> float:
        """How many times the rows would be enough; 1 where they are, infinite without any unit."""
        return max(1.0, self.needed / self.num_units) if self.num_units else math.inf


def outlook(units: Mapping[str, int], config: CertificateConfig, scopes: Sequence[Scope]) -> Outlook:
    """The outlook of a first look at certify rows that have so many `units` of each task."""
    standings = {scope: _standing(units, config, scope) for scope in scopes}
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
        by_method=fewest_by_method(config.epsilon, delta, config.method),
        epsilon=smallest_epsilon(have, delta, config.method),
        scopes=able,
    )


def fewest_by_method(epsilon: float, delta: float, method: Literal["auto"] | TableMethod) -> dict[TableMethod, int]:
    """Fewest units that could certify `epsilon`, none of them lost, by each method that `method` allows.

    At epsilon 0 all of them would have to be won, and `net` alone credits that.
    """
    if epsilon == 0:
        return {"net": fewest_net(epsilon, delta)}
    fewest_units: dict[TableMethod, int] = {
        "regret": fewest_binomial(epsilon, delta),
        "net": fewest_net(epsilon, delta),
    }
    return fewest_units if method == "auto" else {method: fewest_units[method]}


def fewest(epsilon: float, delta: float, method: Literal["auto"] | TableMethod) -> int:
    """Fewest units that could certify `epsilon`, none of them lost; of `auto` by the better of the two methods."""
    return min(fewest_by_method(epsilon, delta, method).values())


def smallest_epsilon(num_units: int, delta: float, method: Literal["auto"] | TableMethod) -> float | None:
    """The smallest multiple of half a point below 1/2 that so many units could certify; None where none could."""
    steps = range(1, round(0.5 / _STEP))
    step = next((step for step in steps if fewest(step * _STEP, delta, method) <= num_units), None)
    return None if step is None else step * _STEP


def _standing(units: Mapping[str, int], config: CertificateConfig, scope: Scope) -> tuple[int, float]:
    """The units that count, and the delta that each decision may spend at a first look."""
    delta = question_delta(config.delta, 1)
    if config.max_call_rate is not None:
        delta /= 2
    if scope == "per_task":
        delta /= 1 + len(units)
    by_task = scope == "per_task" or config.every_task
    return (min(units.values()) if by_task else sum(units.values())), delta
