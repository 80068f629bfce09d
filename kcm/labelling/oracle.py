"""Whom a table's labels are bought from: a server, a function, or a column of recorded answers.

Shapes: U texts, each asked at most once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from typing import Any

import numpy as np

from kcm.errors import ConfigError, DataError
from kcm.inputs.content import Content
from kcm.labelling.guess import Units
from kcm.labelling.purchases import FAILED, NoAnswers
from kcm.large.adapters.openai import OpenAiModel
from kcm.large.base import Item, LargeAnswer
from kcm.large.prompts import matching_label

_MAX_OUTAGES = 16  # in a row
_FEWEST = 50  # texts that a batch is worth waiting for
_AT_ONCE = 2048  # questions that wait in memory; many more than are under way
_IN_A_CALL = 64  # texts that a function gets together
Progress = Callable[[int, float], None]
"""Called with the answers bought so far and the currency spent."""


class ServerOracle:
    """A language model behind a server; answers are committed one by one, and paid for once."""

    def __init__(self, model: OpenAiModel, texts: Sequence[str], progress: Progress) -> None:
        self._model, self._texts, self._progress = model, texts, progress
        self._num_bought = self._num_answered = 0
        self.reasons: dict[int, str] = {}

    def __call__(self, units: Units) -> Units:
        """Codes of labels. Raises ConfigError if the server refuses the key or the model.

        An interruption ends the questions that were not sent.
        """
        codes = np.full(len(units), FAILED, dtype=np.int64)
        try:
            off_label = self._ask(np.arange(len(units)), units, codes, again=False)
            self._ask(off_label, units, codes, again=True)
        except BaseException as error:  # nothing more is asked, or the process would go on paying
            self._model.close()
            if isinstance(error, ConfigError) and not self._num_answered:
                raise NoAnswers(error.what, where=error.where, hint="Check --llm, --base-url and the key") from None
            raise
        return codes

    def ahead(self, units: Units) -> None:
        """Pay for many texts at half the price, if the model is to use batches; asked for, their answers are there.

        Also collects the batches that an earlier start left, without any units these alone. Raises DataError if the
        server refuses a batch.
        """
        asked = units if len(units) >= _FEWEST else units[:0]
        items = [Item(str(unit), Content(self._texts[unit])) for unit in asked]
        try:
            self._model.ask_ahead(items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))
        except BaseException:  # as above
            self._model.close()
            raise

    def _ask(self, places: Units, units: Units, codes: Units, *, again: bool) -> Units:
        """Ask the units at these places; the places of replies outside the label list."""
        off_label: list[int] = []
        outages = 0  # in a row
        for place, answer in self._answers(places, units, again=again):
            if answer.label is None:
                self.reasons[int(units[place])] = answer.error or "no answer"
                if answer.off_label:
                    off_label.append(place)
            else:
                codes[place] = answer.label
                self.reasons.pop(int(units[place]), None)
            outages = outages + 1 if answer.outage else 0
            if outages > _MAX_OUTAGES:
                raise self._unreachable(answer.error or "")
            self._num_bought += not again
            self._num_answered += answer.label is not None
            self._progress(self._num_bought, self.spent)
        return np.array(sorted(off_label), dtype=np.int64)

    def _answers(self, places: Units, units: Units, *, again: bool) -> Iterator[tuple[int, LargeAnswer]]:
        """The answers as they arrive, with their places."""
        for start in range(0, len(places), _AT_ONCE):
            futures = {}
            for place in places[start : start + _AT_ONCE].tolist():
                item = Item(str(units[place]), Content(self._texts[units[place]]))
                futures[self._model.ask(item, again=again)] = place
            for future in as_completed(futures):
                yield futures[future], future.result()

    def _unreachable(self, reason: str) -> DataError:
        """The error for a server that is out of reach."""
        if self._num_answered == 0:
            hint = "Check --base-url and the key, or start again later"
            return NoAnswers(f"the LLM does not answer: {reason}", where="llm", hint=hint)
        hint = "Start again when it answers: the job goes on, and nothing is paid twice"
        return DataError(f"the LLM stopped answering: {reason}", where="llm", hint=hint)

    @property
    def spent(self) -> float:
        """Currency spent by this job, earlier starts included."""
        return self._model.spent()[1]


class CallableOracle:
    """A function from a list of texts to their labels; None for a text without an answer."""

    def __init__(
        self,
        answer: Callable[[list[str]], Sequence[Any]],
        texts: Sequence[str],
        label_names: Sequence[str],
        progress: Progress,
    ) -> None:
        self._answer, self._texts, self._names, self._progress = answer, texts, label_names, progress
        self._num_bought = 0
        self.reasons: dict[int, str] = {}
        self.spent = 0.0

    def __call__(self, units: Units) -> Units:
        """Codes of labels. Raises DataError for another number of answers than texts."""
        codes: list[int] = []
        for start in range(0, len(units), _IN_A_CALL):
            part = units[start : start + _IN_A_CALL]
            answers = list(self._answer([self._texts[unit] for unit in part]))
            if len(answers) != len(part):
                raise DataError(f"{len(answers)} answers to {len(part)} texts", where="llm")
            codes += [self._code(int(unit), answer) for unit, answer in zip(part, answers, strict=True)]
            self._num_bought += len(part)
            self._progress(self._num_bought, 0.0)
        return np.array(codes, dtype=np.int64)

    def ahead(self, units: Units) -> None:
        """Nothing: a function is asked when its answers are needed."""

    def _code(self, unit: int, answer: Any) -> int:
        if answer is None or (isinstance(answer, float) and math.isnan(answer)):
            self.reasons[unit] = "no answer"
            return FAILED
        code = matching_label(str(answer).strip(), self._names)
        if code is None:
            self.reasons[unit] = f"answered {str(answer)[:100]!r}, which is not on the label list"
            return FAILED
        return code
