"""Whom a table's labels are bought from: a server, a function, or a column of recorded answers.

Shapes: U texts, each asked at most once.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import make_url

from kcm.errors import ConfigError, DataError
from kcm.inputs.content import Content
from kcm.labelling.label_list import LabelList
from kcm.labelling.purchases import FAILED, NoAnswers, Oracle, Units
from kcm.labelling.texts import Texts, column_of
from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel
from kcm.large.base import Estimate, Item, LargeAnswer
from kcm.large.prompts import matching_label
from kcm.large.response_cache import ResponseStore

Llm = str | OpenAiConfig | Callable[[list[str]], Sequence[Any]]
Progress = Callable[[int, float], None]
"""Called with the answers bought so far and the currency spent."""
_MAX_OUTAGES = 16  # in a row
_FEWEST = 50  # texts that a batch is worth waiting for
_AT_ONCE = 2048  # questions that wait in memory; many more than are under way
_IN_A_CALL = 64  # texts that a function gets together


class ServerOracle(Oracle):
    """A language model behind a server; answers are committed one by one, and paid for once.

    `account` is what the job's spending is booked to; `max_cost` limits it. `say`
    receives lines about batches and about a server that stops answering.
    """

    def __init__(
        self,
        config: OpenAiConfig,
        texts: Sequence[str],
        labels: LabelList,
        store: ResponseStore,
        account: str,
        max_cost: float | None,
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        super().__init__()
        config = config.model_copy(update={"prompt": labels.prompt, "max_cost": max_cost})
        self.is_capped = max_cost is not None
        self._has_price = bool(config.input_price or config.output_price)
        if self.is_capped and not self._has_price:
            hint = "Give --input-price and --output-price, in dollars per million tokens"
            raise DataError(f"a cap needs a price, and none is known for {config.model}", where="max_cost", hint=hint)
        self._model = OpenAiModel(config, labels.names, store, warn=say, account=account)
        self._texts, self._progress = texts, progress
        self._num_bought = self._num_answered = 0
        # Another store asks again, and a model may answer otherwise: a choice among stores is a choice among answers.
        self.identity = f"{config.identity(labels.names, Path())} {make_url(store.url).render_as_string()}"
        self.estimate = sum(map(self._model.estimate, self._items(np.arange(len(texts)))), Estimate())
        self.server, self.store = config.model_copy(update={"max_cost": None, "batch": False}), store

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
        try:
            self._model.ask_ahead(self._items(units if len(units) >= _FEWEST else units[:0]))
        except BaseException:  # as above
            self._model.close()
            raise

    def affords(self, units: Units) -> int:
        """How many of these units, in order, can be bought at their highest price.

        Paid units cost nothing, so they are affordable even if a lowered cap is below what was spent.
        """
        if not self.is_capped:
            return len(units)
        total = np.cumsum(self._prices[units])
        return int(np.searchsorted(total, max(0.0, self._model.left()) * (1 + 1e-12), side="right"))

    def paid(self, units: Units) -> Units:
        """Those of the units that were paid for before this start, as far as that is known by their price."""
        return units[self._prices[units] == 0] if self._has_price else units[:0]

    @cached_property
    def _prices(self) -> NDArray[np.float64]:
        """The highest price of each text [U], 0 for a paid one.

        Looked up when first needed: a batch of an earlier start may bring answers before.
        """
        parts = self._items(np.arange(len(self._texts)))
        return np.concatenate([self._model.highest_prices(part) for part in parts])

    def _items(self, units: Units) -> Iterator[list[Item]]:
        """The questions about these texts, in parts."""
        for start in range(0, len(units), _AT_ONCE):
            part = units[start : start + _AT_ONCE].tolist()
            yield [Item(str(unit), Content(self._texts[unit])) for unit in part]

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
        starts = range(0, len(places), _AT_ONCE)
        for start, items in zip(starts, self._items(units[places]), strict=True):
            part = places[start : start + _AT_ONCE].tolist()
            futures = {self._model.ask(item, again=again): place for item, place in zip(items, part, strict=True)}
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


class CallableOracle(Oracle):
    """A function from a list of texts to their labels; None for a text without an answer.

    Nobody can know what decides its answers, so every job with it is another look.
    """

    resumable = False

    def __init__(
        self,
        answer: Callable[[list[str]], Sequence[Any]],
        texts: Sequence[str],
        label_names: Sequence[str],
        progress: Progress,
    ) -> None:
        super().__init__()
        self.identity = f"function {uuid.uuid4().hex}"
        self._answer, self._texts, self._names, self._progress = answer, texts, label_names, progress
        self._num_bought = 0

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

    def _code(self, unit: int, answer: Any) -> int:
        if answer is None or (isinstance(answer, float) and math.isnan(answer)):
            self.reasons[unit] = "no answer"
            return FAILED
        code = matching_label(str(answer).strip(), self._names)
        if code is None:
            self.reasons[unit] = f"answered {str(answer)[:100]!r}, which is not on the label list"
            return FAILED
        return code


class RecordedOracle(CallableOracle):
    """The answers in a column: for every text the answer of its first row."""

    resumable = True

    def __init__(
        self, frame: pd.DataFrame, column: str, texts: Texts, label_names: Sequence[str], progress: Progress
    ) -> None:
        said_U = answers_in(frame, column).to_numpy(dtype=object)[texts.first_rows()]
        by_text = dict(zip(texts.texts, said_U, strict=True))
        super().__init__(lambda some: [by_text[text] for text in some], texts.texts, label_names, progress)
        digest = hashlib.sha256(repr(said_U.tolist()).encode(errors="surrogatepass")).hexdigest()
        self.identity = f"column {column} {digest}"


def answers_in(frame: pd.DataFrame, column: str) -> pd.Series:
    """A column of recorded answers as texts, None for a missing one. Raises DataError without the column."""
    cells = column_of(frame, column, "--answers").convert_dtypes().astype("string").str.strip()  # 1.0 at gaps is 1
    return cells.astype(object).where(cells.notna() & (cells != ""), None)


def opened_store(store: ResponseStore | str | Path | None) -> ResponseStore:
    """The store at a folder, a file or a database's URL, by default the user's own."""
    if isinstance(store, ResponseStore):
        return store
    return ResponseStore.of_user() if store is None else ResponseStore.at(str(store))
