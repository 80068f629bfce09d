"""The result of the rounds: the answers of all units, and the proved bound."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kcm.labelling.agreement import TestedDraw
from kcm.labelling.forecast import Forecast
from kcm.labelling.guarantees import ClassPromise
from kcm.labelling.guess import Guess, Units


@dataclass(eq=False)
class Labelled:
    """The answers of all units, and the proved bound.

    `answer_U` has the oracle's labels where `bought_U`, or the small model's. `differ` bounds the rows that differ
    from the oracle's answers, of `num_rows`; the target allows `allowed`. `num_failed` rows have no answer. `guess` is
    what the small model would answer to every unit; it has learned from the units `taught_U`. `failed_U` have no
    answer: the oracle gave none, or the money did not reach them. `asked_U` were put to the oracle. `is_second_look`
    says whether the bound is that of a second look. `lacking` is the plan that would prove the target with more money.
    """

    answer_U: Units
    wrong_U: NDArray[np.float64]
    bought_U: NDArray[np.bool_]
    failed_U: NDArray[np.bool_]
    asked_U: NDArray[np.bool_]
    guess: Guess
    taught_U: NDArray[np.bool_]
    num_rows: int
    allowed: int
    differ: int
    num_failed: int = 0
    forecasts: list[Forecast] = field(default_factory=list)
    tests: list[TestedDraw] = field(default_factory=list)
    guarantees: tuple[ClassPromise, ...] = ()
    is_second_look: bool = False
    lacking: Forecast | None = None

    @property
    def certified(self) -> bool:
        """Whether the target and all guarantees are proved."""
        return self.differ <= self.allowed and all(guarantee.holds for guarantee in self.guarantees)

    @property
    def promised(self) -> float:
        """The proved share of rows that agree with the oracle."""
        return 1 - self.differ / self.num_rows
