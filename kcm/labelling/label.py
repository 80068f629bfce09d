"""`kcm.label`: labels for a table without any, bought from a large model as seldom as the promise allows.

Shapes: N rows, U different texts, C labels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import yaml
from pydantic import Field

from kcm.api.rows import free_names
from kcm.certification.ledger import Ledger, unit_hashes
from kcm.config import Config, parse_config
from kcm.encoders import EncoderConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.errors import AssetError, ConfigError
from kcm.inputs.content import Content
from kcm.inputs.tables import missing_column
from kcm.labelling.certificate import TableCertificate
from kcm.labelling.draws import DrawFile
from kcm.labelling.encoding import encoded
from kcm.labelling.label_list import LabelList
from kcm.labelling.oracle import CallableOracle, Money, Reasons, ServerOracle
from kcm.labelling.rounds import Forecast, Labelled, Promise, Rounds, Schedule, Units
from kcm.labelling.table import Texts
from kcm.labelling.text import VectorSide
from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel
from kcm.large.base import Estimate, Item
from kcm.large.response_cache import ResponseStore
from kcm.tasks.units import text_key
from kcm.user_folder import user_folder

SCHEDULE = Schedule(pilot=200, growth=0.5, unsure=0.5, slope=0.4)
_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_AT_ONCE = 1000  # texts whose prices are looked up together
DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
Llm = str | OpenAiConfig | Callable[[list[str]], Sequence[Any]]


class LabelConfig(Config):
    """The promise of a labelling job, and its limits."""

    target: float = Field(0.95, gt=0, lt=1, description="Share of labels that must agree with the LLM's.")
    delta: float = Field(0.05, gt=0, lt=1, description="Probability that the promise may be broken.")
    max_cost: float | None = Field(None, gt=0, description="Currency that this job may spend.")
    encoder: str = Field(
        "auto", description="Text encoder: a hub id or folder, words for none; auto: MiniLM if it is at hand."
    )
    seed: int = Field(0, ge=0, description="Seed of all random choices. Another seed is another look.")


class Watcher:
    """What a caller is told while a job runs; a method that raises ends the job, and what was bought is kept."""

    def start(self, texts: Texts, labels: LabelList, estimate: Estimate | None) -> None:
        """Before anything is paid; `estimate` is the price of asking about every text, None if it is not known."""

    def bought(self, count: int, spent: float) -> None:
        """Called with the answers bought so far, recorded ones included, and the currency spent."""

    def planned(self, forecast: Forecast, at: Callable[[float], Forecast]) -> None:
        """After the pilot and every round of training; `at` forecasts another target."""


@dataclass(eq=False)
class Labelling:
    """A labelled table.

    `frame` has the columns `label`, `label_source` (`llm`, `small`, `failed`, or missing for an empty text) and
    `label_probability`, prefixed by kcm_ if the table has columns of these names; `column` is that of the labels.
    `cost` is what this job paid.
    """

    frame: pd.DataFrame
    column: str
    certificate: TableCertificate
    cost: float
    labels: LabelList
    texts: Texts
    result: Labelled
    reasons: Reasons
    forecasts: list[Forecast] = field(default_factory=list)
    side: VectorSide | None = None


def label(
    frame: pd.DataFrame,
    *,
    labels: Sequence[str] | str | Path | None = None,
    llm: Llm | None = None,
    answers: str | None = None,
    text: str | None = None,
    prompt: str | None = None,
    base_url: str | None = None,
    store: ResponseStore | str | Path | None = None,
    ledger: Ledger | str | Path | None = None,
    assets: Path | None = None,
    watcher: Watcher | None = None,
    **options: Any,
) -> Labelling:
    """Label every row of `frame`, so that at least a share `target` of the labels agrees with the large model's.

    Parameters
    ----------
    frame : the table; one column has texts
    labels : names, a file of names, or a file with descriptions and examples (see `LabelList`); by default the
        different values of `answers`
    llm : name of a model behind an OpenAI-compatible server, its configuration, or any function from a list of texts
        to their labels
    answers : column of recorded answers, which are played in place of a model
    text : column of the texts
    prompt : instructions with {labels} in them, in place of ours
    base_url : address of the server, up to before /chat/completions
    store : where paid answers are kept, a database or a SQLite file; by default in the user's folder
    ledger : folder of the ledger of looks; by default in the user's folder
    options : the fields of `LabelConfig`, such as `target`, `delta` and `max_cost`

    Raises DataError for a table, ConfigError for labels, options or a server that cannot be used.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"text": [f"{word} {n}" for n in range(400) for word in ("good", "bad")]})
    >>> found = label(frame, labels=["pos", "neg"], encoder="words",
    ...               llm=lambda texts: ["pos" if text.startswith("good") else "neg" for text in texts])
    >>> bool(found.certificate.certified), found.certificate.bought < len(frame)
    (True, True)
    """
    config = parse_config(LabelConfig, options, where="label")
    told = watcher or Watcher()
    texts = Texts.of(frame, text)
    label_list = _labels(frame, labels, answers, prompt)
    oracle, money, identity = _oracle(frame, texts, label_list, llm, answers, base_url, store, config, told)
    digest = _digest(texts, label_list, identity, config)
    book = ledger if isinstance(ledger, Ledger) else Ledger(Path(ledger or user_folder() / "ledger"))
    names = unit_hashes(text_key(each) for each in texts.texts)
    look = book.look(names, delta=config.delta, digest=digest, purpose="label")
    vectors = encoded(texts.texts, _encoder(config.encoder, assets or _assets()), assets or _assets())
    side = VectorSide(vectors)
    forecasts: list[Forecast] = []

    def watch(forecast: Forecast, at: Callable[[float], Forecast]) -> None:
        forecasts.append(forecast)
        told.planned(forecast, at)

    job = Rounds(
        texts.copies_U,
        side,
        oracle,
        Promise(config.target, look.spend),
        SCHEDULE,
        config.seed,
        purse=money,
        watch=watch,
        draws=DrawFile(user_folder() / "draws" / digest[:32]),
    )
    found = job.run()
    failed = int(texts.copies_U[found.failed_U].sum())
    certificate = TableCertificate.of(
        found,
        target=config.target,
        delta=config.delta,
        spend=look.spend,
        look=look.number,
        seed=config.seed,
        failed=failed,
    )
    labelled, named = _with_labels(frame, texts, label_list, found)
    return Labelling(
        labelled, named["label"], certificate, oracle.spent, label_list, texts, found, oracle.reasons, forecasts, side
    )


class _Oracle(Protocol):
    """What a job asks; see `kcm.labelling.oracle`."""

    reasons: Reasons

    @property
    def spent(self) -> float:
        """Currency spent by this job."""

    def __call__(self, units: Units) -> Units:
        """Codes of labels of these texts."""


def _labels(frame: pd.DataFrame, labels: Any, answers: str | None, prompt: str | None) -> LabelList:
    """The label list; by default the values of the column of recorded answers."""
    if labels is not None:
        return LabelList.of(labels, prompt)
    if answers is None:
        raise ConfigError("no labels", where="labels", hint="Give them as a list, or in a file")
    given = frame[_column(frame, answers, "--answers")].dropna().astype(str).str.strip()
    return LabelList.of(sorted(set(given[given != ""])), prompt)


def _column(frame: pd.DataFrame, column: str, option: str) -> str:
    names = [str(name) for name in frame.columns]
    if column not in names:
        raise missing_column(column, option, names, "table")
    return column


def _oracle(
    frame: pd.DataFrame,
    texts: Texts,
    labels: LabelList,
    llm: Llm | None,
    answers: str | None,
    base_url: str | None,
    store: ResponseStore | str | Path | None,
    config: LabelConfig,
    told: Watcher,
) -> tuple[_Oracle, Money | None, str]:
    """Whom to ask, its money, and what identifies its answers."""
    if answers is not None:
        said = frame[_column(frame, answers, "--answers")].to_numpy(dtype=object)[texts.first_rows()]
        place = {text: said[unit] for unit, text in enumerate(texts.texts)}
        oracle: _Oracle = CallableOracle(
            lambda some: [place[each] for each in some], texts.texts, labels.names, told.bought
        )
        told.start(texts, labels, None)
        return oracle, None, f"column {answers}"
    if llm is None:
        raise ConfigError("no large model", where="llm", hint="Name one, or give a column of recorded answers")
    if callable(llm) and not isinstance(llm, OpenAiConfig):
        told.start(texts, labels, None)
        return (
            CallableOracle(llm, texts.texts, labels.names, told.bought),
            None,
            f"function {getattr(llm, '__qualname__', llm)!s}",
        )
    server = llm if isinstance(llm, OpenAiConfig) else openai_config(str(llm), base_url)
    server = server.model_copy(update={"prompt": labels.prompt, "max_cost": config.max_cost})
    identity = server.identity(labels.names, Path())
    responses = store if isinstance(store, ResponseStore) else opened_store(store)
    account = f"label {_digest(texts, labels, identity, config)[:32]}"
    model = OpenAiModel(server, labels.names, responses, account=account)
    items = [Item(str(unit), Content(each)) for unit, each in enumerate(texts.texts)]
    parts = [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]
    told.start(texts, labels, sum((model.estimate(part) for part in parts), Estimate()))
    money = None
    if config.max_cost is not None:
        limit, prices = config.max_cost, [price for part in parts for price in model.highest_prices(part)]
        money = Money(np.array(prices), lambda: limit - model.spent()[1])
    return ServerOracle(model, texts.texts, told.bought), money, identity


def opened_store(store: str | Path | None) -> ResponseStore:
    """The store of a database's URL or of a file; by default the user's own."""
    if isinstance(store, str) and "://" in store:
        return ResponseStore(store)
    return ResponseStore.in_file(Path(store or user_folder() / "answers.sqlite"))


def openai_config(model: str, base_url: str | None = None, **more: Any) -> OpenAiConfig:
    """The server of a model: OpenAI's own at its listed price, or the one at `base_url`.

    A server on this machine gets no key unless `api_key_env` names one. `more` are fields of `OpenAiConfig`.
    """
    values: dict[str, Any] = {"adapter": "openai", "model": model}
    if base_url is None:
        values |= dict(zip(("input_price", "output_price"), listed_prices().get(model, ()), strict=False))
    else:
        values["base_url"] = base_url
        if urlsplit(base_url).hostname in _THIS_MACHINE:
            values["api_key_env"] = None
    return parse_config(OpenAiConfig, values | more, where="llm")


@cache
def listed_prices() -> dict[str, list[float]]:
    """Currency per million tokens read and written, by model; a file that people may edit."""
    prices: dict[str, list[float]] = yaml.safe_load(files("kcm.large").joinpath("prices.yaml").read_text("utf-8"))
    return prices


def _digest(texts: Texts, labels: LabelList, identity: str, config: LabelConfig) -> str:
    """What makes two jobs the same one: table, labels, prompt, model, promise and seed; not the money."""
    request = config.model_dump(mode="json", exclude={"max_cost"})
    parts = [labels.names, labels.prompt.model_dump(mode="json"), identity, request]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
    for text in texts.texts:
        digest.update(hashlib.sha256(text.encode(errors="surrogatepass")).digest())
    digest.update(np.ascontiguousarray(texts.copies_U).tobytes())
    return digest.hexdigest()


def _with_labels(
    frame: pd.DataFrame, texts: Texts, labels: LabelList, found: Labelled
) -> tuple[pd.DataFrame, dict[str, str]]:
    """A copy of the frame with label, source and probability, and the names of these columns there."""
    names = np.array([*labels.names], dtype=object)
    source_U = np.where(found.bought_U, "llm", np.where(found.failed_U, "failed", "small")).astype(object)
    known_N = texts.unit_N >= 0
    unit_N = np.where(known_N, texts.unit_N, 0)
    columns = {
        "label": pd.Series(names[found.answer_U[unit_N]], frame.index).where(known_N, None),
        "label_source": pd.Series(source_U[unit_N], frame.index).where(known_N, None),
        "label_probability": np.where(known_N, 1 - found.wrong_U[unit_N], np.nan),
    }
    named = free_names(columns, frame.columns)
    return frame.assign(**{named[name]: column for name, column in columns.items()}), named


def _encoder(name: str, assets: Path) -> EncoderConfig | None:
    """The text encoder; None for the words alone. `auto` is MiniLM if it can be loaded."""
    if name == "words":
        return None
    config = TextEncoderConfig(model=DEFAULT_ENCODER if name == "auto" else name)
    try:
        config.identity(assets)
    except AssetError:
        if name != "auto":
            raise
        return None
    return config


def _assets() -> Path:
    return Path(os.environ.get("KCM_ASSETS", "assets"))
