"""A cheaper model between the small one and the oracle: asked about everything if the plan says that this pays.

Its answers are features of the regression and a signal of the judge, so they are delivered if they are likely right.
Shapes: U units, B of them bought from the oracle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kcm.labelling.looks import DrawFile
from kcm.labelling.plan import cheapest_plan
from kcm.labelling.purchases import Guess, Oracle, Units
from kcm.labelling.text import VectorSide

_CHOICE = 0  # number of the file with purchases and choice, in the folder of the draws


class CheaperSide:
    """A small model that reads a cheaper model's answers, once it has bought them.

    An answer of the `cheaper` model costs `ratio` of one of the oracle. After the pilot, both small models
    are compared by the plans that follow from what they say of the pilot's units, left out: without the cheaper model,
    and with it at its price. `allowed` of all units may differ, at `delta`. The choice is kept beside the `draws`: a
    job that goes on with a draw of an earlier start never fits the pilot again.
    """

    def __init__(
        self,
        vectors_UD: NDArray[np.float32],
        cheaper: Oracle,
        ratio: float,
        allowed: int,
        delta: float,
        draws: DrawFile | None,
    ) -> None:
        self._vectors, self._cheaper, self._ratio = vectors_UD, cheaper, ratio
        self._allowed, self._delta, self._draws = allowed, delta, draws
        self._hint_U = np.full(len(vectors_UD), -1, dtype=np.int64)
        self._asked_U = np.zeros(len(vectors_UD), dtype=bool)
        self._side: VectorSide | None = None
        chosen = draws.read(_CHOICE) if draws else None
        if chosen is not None:
            self._hint_U, self._asked_U = chosen["hint_U"].astype(np.int64), chosen["asked_U"].astype(bool)
            self._side = self._of(bool(chosen["helps"]))

    @property
    def num_bought(self) -> int:
        """Answers of the cheaper model."""
        return int(self._asked_U.sum())

    @property
    def side(self) -> VectorSide:
        """The small model that was chosen; before the pilot one without the cheaper model."""
        return self._side or VectorSide(self._vectors)

    def fit(self, units: Units, labels: Units) -> Guess:
        """See `SmallModel`; the first call decides whether the cheaper model is asked about everything."""
        if self._side is None:
            self._side = self._chosen(units, labels)
        return self._side.fit(units, labels)

    def _chosen(self, units: Units, labels: Units) -> VectorSide:
        self._buy(units)
        alone, helped = self._of(False), self._of(True)
        for side in (alone, helped):
            side.fit(units, labels)
        helps = self._calls(helped) + self._ratio * len(self._vectors) < self._calls(alone)
        if helps:
            rest = np.flatnonzero(~self._asked_U)
            self._cheaper.ahead(rest)
            self._buy(rest)
        if self._draws:
            self._draws.write(_CHOICE, {"hint_U": self._hint_U, "asked_U": self._asked_U, "helps": np.array(helps)})
        return self._of(helps)

    def _of(self, helps: bool) -> VectorSide:
        """The small model with or without what the cheaper model said so far."""
        return VectorSide(self._vectors, self._hint_U if helps else None)

    def _calls(self, side: VectorSide) -> float:
        """Calls of the plan if all units were like the pilot's."""
        if len(side.wrong_B) == 0:
            return 0.0
        quantiles = np.linspace(0, 1, len(self._vectors))
        return cheapest_plan(np.quantile(side.wrong_B, quantiles), self._allowed, self._delta).calls

    def _buy(self, units: Units) -> None:
        self._hint_U[units] = self._cheaper(units)
        self._asked_U[units] = True
