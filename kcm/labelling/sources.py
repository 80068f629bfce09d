"""From what a user names - a model, a function, a column of recorded answers - to an oracle and its money."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import make_url

from kcm.errors import DataError
from kcm.inputs.content import Content
from kcm.labelling.guess import Units
from kcm.labelling.label_list import LabelList
from kcm.labelling.oracle import CallableOracle, Progress, ServerOracle
from kcm.labelling.purchases import Money
from kcm.labelling.table import Texts, column_of
from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel
from kcm.large.base import Estimate, Item
from kcm.large.response_cache import ResponseStore

Llm = str | OpenAiConfig | Callable[[list[str]], Sequence[Any]]
_AT_ONCE = 2048  # texts whose prices are looked up together


class Oracle(Protocol):
    """What a job asks; see `kcm.labelling.oracle`."""

    reasons: dict[int, str]
    """Why units have no answer, by unit."""

    @property
    def spent(self) -> float:
        """Currency spent by this job."""

    def __call__(self, units: Units) -> Units:
        """Codes of labels of these texts."""

    def ahead(self, units: Units) -> None:
        """Pay for many texts together, if that is cheaper."""


@dataclass(frozen=True, eq=False)
class AnswerSource:
    """An oracle. `identity` names what decides its answers, and `estimate` the price of asking about every text.

    `estimate` is None if there is no price, `money` if there is no cap. `resumable` says whether answers outlast the
    process, so that a job that was killed can go on. `server` and `store` are those of a server, without the job's cap.
    `paid` gives those of some units that were paid for before this start, as far as that is known by their price.
    """

    oracle: Oracle
    identity: str
    estimate: Estimate | None = None
    money: Money | None = None
    resumable: bool = True
    server: OpenAiConfig | None = None
    store: ResponseStore | None = None
    paid: Callable[[Units], Units] = lambda units: units[:0]


def recorded(frame: pd.DataFrame, column: str, texts: Texts, labels: LabelList, progress: Progress) -> AnswerSource:
    """The answers in a column: for every text the answer of its first row."""
    said_U = answers_in(frame, column).to_numpy(dtype=object)[texts.first_rows()]
    by_text = dict(zip(texts.texts, said_U, strict=True))
    digest = hashlib.sha256(repr(said_U.tolist()).encode(errors="surrogatepass")).hexdigest()
    oracle = CallableOracle(lambda some: [by_text[text] for text in some], texts.texts, labels.names, progress)
    return AnswerSource(oracle, f"column {column} {digest}")


def answers_in(frame: pd.DataFrame, column: str) -> pd.Series:
    """A column of recorded answers as texts, None for a missing one. Raises DataError without the column."""
    cells = column_of(frame, column, "--answers").convert_dtypes().astype("string").str.strip()  # 1.0 at gaps is 1
    return cells.astype(object).where(cells.notna() & (cells != ""), None)


def function(
    llm: Callable[[list[str]], Sequence[Any]], texts: Texts, labels: LabelList, progress: Progress
) -> AnswerSource:
    """A function of the caller's. Nobody can know what decides its answers, so every job with it is another look."""
    oracle = CallableOracle(llm, texts.texts, labels.names, progress)
    return AnswerSource(oracle, f"function {uuid.uuid4().hex}", resumable=False)


def server(
    config: OpenAiConfig,
    texts: Texts,
    labels: LabelList,
    store: ResponseStore,
    account: str,
    max_cost: float | None,
    progress: Progress,
    say: Callable[[str], None],
) -> AnswerSource:
    """A model behind a server. `account` is what the job's spending is booked to; `max_cost` limits it.

    The store may have a total as well. `say` receives lines about batches and about a server that stops answering.
    """
    config = config.model_copy(update={"prompt": labels.prompt, "max_cost": max_cost})
    is_capped = max_cost is not None or store.max_cost is not None
    has_price = bool(config.input_price or config.output_price)
    if is_capped and not has_price:
        hint = "Give --input-price and --output-price, in dollars per million tokens"
        raise DataError(f"a cap needs a price, and none is known for {config.model}", where="max_cost", hint=hint)
    model = OpenAiModel(config, labels.names, store, warn=say, account=account)

    def parts() -> Iterator[list[Item]]:
        for start in range(0, len(texts.texts), _AT_ONCE):
            part = texts.texts[start : start + _AT_ONCE]
            yield [Item(str(unit), Content(text)) for unit, text in enumerate(part, start)]

    estimate = sum(map(model.estimate, parts()), Estimate())

    @cache  # looked up when they are first needed: a batch of an earlier start may bring answers before
    def prices() -> NDArray[np.float64]:
        return np.concatenate([model.highest_prices(part) for part in parts()])

    def paid(units: Units) -> Units:
        return units[prices()[units] == 0] if has_price else units[:0]

    money = Money(prices, model.left) if is_capped else None
    oracle = ServerOracle(model, texts.texts, progress)
    lasting = config.model_copy(update={"max_cost": None, "batch": False})
    # Another store asks again, and a model may answer otherwise: a choice among stores is a choice among answers.
    identity = f"{config.identity(labels.names, Path())} {make_url(store.url).render_as_string()}"
    return AnswerSource(oracle, identity, estimate, money, server=lasting, store=store, paid=paid)


def opened_store(store: ResponseStore | str | Path | None, max_cost: float | None = None) -> ResponseStore:
    """The store at a folder, a file or a database's URL, by default the user's own; `max_cost` is its total."""
    if not isinstance(store, ResponseStore):
        store = ResponseStore.of_user() if store is None else ResponseStore.at(str(store))
    return store if max_cost is None else replace(store, max_cost=max_cost)
