"""The result of a labelling job: the answers of all units, the bound that is proved, and the certificate on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kcm.certification.ledger import Look
from kcm.config import Config
from kcm.labelling.agreement import TestedDraw
from kcm.labelling.forecaster import Forecast
from kcm.labelling.guarantees import ClassPromise
from kcm.labelling.purchases import Guess, Units


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


class TableCertificate(Config):
    """With probability at least 1 - `spend` at most `most_differ` of `rows` differ from the oracle's answers.

    `delta` was asked for, and this look at the question may spend `spend` of it; `look` is None if no ledger recorded
    it, or if there was no draw: then `spend` is 0. `certified` says whether the `target` and all `guarantees` are
    proved. It holds for this table and not for other rows.
    """

    rows: int
    texts: int = Field(description="Different texts: equal ones are asked once.")
    bought: int = Field(description="Texts whose answer was bought.")
    bought_cheaper: int = Field(0, description="Texts that the cheaper model was asked about.")
    guarantees: tuple[ClassPromise, ...] = Field(
        (), description="Promises about labels; each holds with probability at least 1 - `spend`."
    )
    failed: int = Field(description="Rows without a usable answer of the oracle; they count as rows that differ.")
    target: float | None = Field(description="None if only `guarantees` were asked for.")
    delta: float
    spend: float
    look: int | None
    allowed: int = Field(description="Rows that may differ at the target.")
    most_differ: int = Field(description="Proved upper bound on the rows that differ.")
    promised: float = Field(description="Proved share of rows that agree, rounded down.")
    certified: bool
    draws: tuple[TestedDraw, ...]
    seed: int

    @classmethod
    def of(
        cls,
        labelled: Labelled,
        *,
        target: float | None,
        delta: float,
        seed: int,
        look: Look | None = None,
        bought_cheaper: int = 0,
    ) -> TableCertificate:
        """The certificate of a finished job; a draw without a look spends the whole delta."""
        is_sampled = bool(labelled.tests or labelled.guarantees)
        return cls(
            rows=labelled.num_rows,
            texts=len(labelled.answer_U),
            bought=int(labelled.asked_U.sum()),
            bought_cheaper=bought_cheaper,
            failed=labelled.num_failed,
            target=target,
            delta=delta,
            spend=0.0 if not is_sampled else delta if look is None else look.spend,
            look=None if look is None else look.number,
            allowed=labelled.allowed,
            most_differ=labelled.differ,
            promised=math.floor(1e6 * (1 - labelled.differ / labelled.num_rows)) / 1e6,
            certified=labelled.certified,
            draws=tuple(labelled.tests),
            guarantees=labelled.guarantees,
            seed=seed,
        )

    @property
    def sure(self) -> str:
        """The probability with which the promise holds, rounded down."""
        return f"{math.floor(round(1000 * (1 - self.spend), 6)) / 10:g}%"

    @property
    def is_exact(self) -> bool:
        """Whether every label is the LLM's own answer, which is then certain."""
        return self.bought == self.texts and not self.failed

    @property
    def sentence(self) -> str:
        """The promise, for people."""
        if self.is_exact:
            return f"All {self.rows:,} labels are the LLM's own."
        if self.target is None:
            return (
                f"With {self.sure} probability each, of the {self.rows:,} labels against what the LLM would have said:"
            )
        chance = f"With {self.sure} probability, at" if self.spend else "At"
        unless = f", or more with a probability of up to {100 * self.spend:.2g}%" if self.spend else ""
        return (
            f"{chance} least {at_least(self.promised)} of the {self.rows:,} labels are what the LLM would have said:"
            f" at most {self.most_differ:,} differ{unless}."
        )


def at_least(share: float) -> str:
    """A lower bound of 0.99996 as `99.99%`: never rounded up."""
    return f"{math.floor(round(10_000 * share, 6)) / 100:.2f}%"
