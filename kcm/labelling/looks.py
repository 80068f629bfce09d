"""The looks of one labelling job in the ledger of certificates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kcm.certification.ledger import Ledger, Look, question_delta, unit_hashes
from kcm.labelling.config import LabelConfig


class JobLooks:
    """The looks of one job. They are recorded when a draw begins: without a draw nothing of delta is used.

    `texts` name the units, `digest` everything that the job depends on, and `purpose` describes it for people. `say`
    receives a line if there is a second look.
    """

    def __init__(
        self, ledger: Ledger, texts: Iterable[str], delta: float, digest: str, purpose: str, say: Callable[[str], None]
    ) -> None:
        self._ledger, self._units, self._delta, self._say = ledger, unit_hashes(texts), delta, say
        self._digest, self._purpose = digest, purpose
        self._next = ledger.preview(self._units, delta=delta, digest=digest)
        self._taken: dict[bool, Look] = {}

    def take(self, *, again: bool = False) -> Look:
        """The first look of the job, or the second; repeating either costs nothing."""
        digest = f"{self._digest} again" if again else self._digest
        self._taken[again] = self._ledger.look(self._units, delta=self._delta, digest=digest, purpose=self._purpose)
        return self._taken[again]

    def taken(self, *, again: bool = False) -> Look | None:
        """The first look, or the second; None if the job has not taken it."""
        return self._taken.get(again)

    def forecast(self, *, again: bool = False) -> float:
        """What of delta the first look may spend, or the second, as far as known before it is taken."""
        return question_delta(self._delta, self._next.number + 1) if again else self._next.spend

    def spend(self, *, again: bool = False) -> float:
        """What of delta a look may spend, once it is taken."""
        look = self.take(again=again)
        if again:
            self._say(f"There is money for a draw that proves the target. {look.sentence}")
        return look.spend

    @property
    def salt(self) -> tuple[int, ...]:
        """Seeds the draws of this job besides its seed; empty for the first look on these texts.

        A later job, such as one with another target, is chosen in knowledge of earlier draws: its own must be new.
        """
        look = self._taken[False]
        return () if look.number == 1 else (look.number, int(self._digest[:16], 16))

    @property
    def earlier(self) -> str:
        """A line about the last other job on these texts; empty if there was none."""
        purposes = [
            look.purpose
            for look in self._ledger.looks()
            if look.question == self._next.question and not look.digest.startswith(self._digest)
        ]
        return f"An earlier look was by: {purposes[-1]}. {self._next.sentence}" if purposes else ""


def described(columns: Sequence[str], llms: Sequence[Any], config: LabelConfig) -> str:
    """A job in one phrase: who answers, the target and the seed."""
    names = columns or ["a function" if callable(llm) else llm.model for llm in llms]
    target = "" if config.target is None else f", target {config.target:g}"
    return f"label, {' and '.join(names)}{target}, seed {config.seed}"
