"""`kcm.label`: labels for a table without any, bought from a large model as seldom as the promise allows.

Shapes: N rows, U different texts, C labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kcm.api.cascade import Cascade
from kcm.api.rows import free_names
from kcm.assets import default_assets
from kcm.bundle.bundle import Bundle
from kcm.bundle.models import load_large
from kcm.bundle.runtime import SmallSide
from kcm.certification.finite import allowed_errors
from kcm.certification.ledger import Ledger, Look, question_delta, unit_hashes
from kcm.config import parse_config
from kcm.encoders import EncoderConfig
from kcm.errors import ConfigError
from kcm.labelling.bundle import bundle_of
from kcm.labelling.certificate import TableCertificate
from kcm.labelling.cheaper import CheaperSide
from kcm.labelling.config import DEFAULT_TARGET, LabelConfig
from kcm.labelling.draws import DrawFile
from kcm.labelling.encoding import Mapper, encoded, in_process, named_encoder
from kcm.labelling.guarantees import Guarantee
from kcm.labelling.judge import Judge
from kcm.labelling.label_list import LabelList
from kcm.labelling.oracle import Failures
from kcm.labelling.rounds import AnotherLook, Forecast, Labelled, NoAnswers, Promise, Rounds, Schedule
from kcm.labelling.sources import AnswerSource, Llm, answers_in, function, opened_store, recorded, server
from kcm.labelling.table import Texts
from kcm.labelling.text import VectorSide
from kcm.labelling.truth import NO_LABEL, Accuracies, measured, truth_codes
from kcm.large.adapters.openai import OpenAiConfig, openai_config
from kcm.large.base import Estimate
from kcm.large.response_cache import ResponseStore
from kcm.tasks.units import text_key
from kcm.user_folder import user_folder

PRICE_RATIO = 1 / 15


class Watcher:
    """Callbacks of a running job; a method that raises ends the job, and bought answers are kept."""

    def compare(self, num_texts: int) -> None:
        """First, if people labelled rows with so many texts: the LLM's answers on them are bought in the end."""

    def start(self, texts: Texts, labels: LabelList, estimates: Sequence[Estimate | None]) -> None:
        """Before anything is paid; what each model would cost for every text, None if it has no price."""

    def resumed(self) -> None:
        """Before anything is bought, if an earlier start of the job has begun its draw: no pilot and no plan follow."""

    def bought(self, count: int, spent: float) -> None:
        """Called with the answers bought so far, recorded ones included, and the currency spent."""

    def bought_cheaper(self, count: int, spent: float) -> None:
        """As `bought`, of the cheaper model."""

    def said(self, line: str) -> None:
        """A batch was sent, or the server is in trouble."""

    def planned(self, forecast: Forecast, at: Callable[[float], Forecast]) -> None:
        """After the pilot and every round of training; `at` forecasts another target."""

    def drawn(self, total: int, promised: float) -> None:
        """After the draw: calls in all, and the share of rows that is now expected to be proved to agree."""


@dataclass(eq=False)
class LabelledTable:
    """A labelled table.

    `frame` has the columns `label`, `label_source` (`llm`, `small`, `failed`, or missing for an empty text) and
    `label_probability`, prefixed by kcm_ if the table has columns of these names; `column` names the column of labels.
    `cost` is what this job paid; `estimate` is the price of asking about every text when it began, None if that is not
    known. `models` are what a bundle is made of, None if it cannot be made.
    `accuracies` are by people's labels, if there are any.
    """

    frame: pd.DataFrame
    column: str
    certificate: TableCertificate
    cost: float
    labels: LabelList
    texts: Texts
    result: Labelled
    reasons: Failures
    models: _Models | None
    side: VectorSide
    forecasts: list[Forecast] = field(default_factory=list)
    estimate: Estimate | None = None
    accuracies: Accuracies | None = None

    @cached_property
    def judge(self) -> Judge | None:
        """The judge that ranked the texts; None if the bought answers left nothing to judge."""
        if self.side.judge is None and self.result.taught_U.any():  # the job continued a draw of an earlier start
            taught = np.flatnonzero(self.result.taught_U)
            self.side.fit(taught, self.result.answer_U[taught])
        return self.side.judge

    @property
    def no_bundle(self) -> str | None:
        """Why there is no bundle; None if there is one."""
        if self.models is None:
            return "it needs a server that answers what it escalates, and a text encoder"
        return "fewer than two answers were bought" if self.result.bought_U.sum() < 2 else None

    @cached_property
    def bundle(self) -> Bundle:
        """The small model for the next file, not certified. Raises ConfigError if there is none."""
        models = self.models
        if models is None or self.no_bundle:
            raise ConfigError(f"no bundle: {self.no_bundle}", where="label")
        return bundle_of(
            self.texts.texts,
            models.features_UD,
            self.result,
            self.labels.names,
            models.encoder,
            models.server,
            models.assets,
            self.certificate.seed,
        )

    @property
    def cascade(self) -> Cascade:
        """The bundle in memory, with the job's store of paid answers. Raises ConfigError if there is no bundle."""
        bundle, models = self.bundle, self.models
        assert models is not None
        small_side = SmallSide(bundle, models.encoder.build(models.assets))
        large = load_large(bundle, models.assets, upstreams=[models.server], responses=models.store)
        return Cascade(small_side, large)


@dataclass(frozen=True, eq=False)
class _Models:
    """What a bundle is made of: the encoder, its features [U, D], and the server with its store of paid answers."""

    assets: Path
    encoder: EncoderConfig
    features_UD: NDArray[np.float32]
    server: OpenAiConfig
    store: ResponseStore


def label(
    frame: pd.DataFrame,
    *,
    labels: Sequence[str] | str | Path | None = None,
    llm: Llm | Sequence[Llm] | None = None,
    answers: str | Sequence[str] | None = None,
    text: str | None = None,
    truth: str | None = None,
    guarantees: Sequence[str] = (),
    prompt: str | None = None,
    base_url: str | None = None,
    store: ResponseStore | str | Path | None = None,
    ledger: Ledger | str | Path | None = None,
    assets: Path | None = None,
    watcher: Watcher | None = None,
    mapper: Mapper = in_process,
    **options: Any,
) -> LabelledTable:
    """Label every row of `frame`, so that at least a share `target` of the labels agrees with the large model's.

    Parameters
    ----------
    frame : the table; one column has texts
    labels : names, a file of names, or a file with descriptions and examples (see `LabelList`); by default the
        different values of `answers`
    llm : name of a model behind an OpenAI-compatible server, its configuration, or any function from a list of texts
        to their labels; or two of them, a cheaper one and the one to agree with
    answers : column of recorded answers, which are played in place of a model; or two columns
    text : column of the texts
    truth : column of people's labels on some rows, a random sample of them: measures the accuracy of the labels and of
        the model, whose answers on these rows are bought once the promise is settled, as far as the money allows
    guarantees : promises about single labels, such as `precision:spam=.95` and `recall:spam=.9`; beside an explicit
        target, else in its place
    prompt : instructions with {labels} in them, in place of ours
    base_url : address of the server, up to before /chat/completions
    store : where paid answers are kept, a database or a SQLite file; by default in the user's folder
    ledger : folder of the ledger of looks; by default in the user's folder
    mapper : how texts become vectors: in this process, or on a cluster
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
    config = parse_config(LabelConfig, options, where="kcm.label", name="option")
    if config.target is None and not guarantees:
        config = config.model_copy(update={"target": DEFAULT_TARGET})
    told = watcher or Watcher()
    columns, llms = _listed(answers), [_server(model, base_url) for model in _listed(llm)]
    _check_models(len(columns), len(llms))
    texts = Texts.of(frame, text)
    label_list = _labels(frame, labels, columns, prompt)
    classes = Guarantee.parsed(guarantees, label_list.names)
    truth_N = None if truth is None else truth_codes(frame, truth, label_list.names, texts.unit_N)
    if truth_N is not None:
        told.compare(len(set(texts.unit_N[truth_N != NO_LABEL])))
    account = f"label {_digest(texts, label_list, [*map(_paid_as, llms)], config, classes)[:32]}"

    def source(number: int) -> AnswerSource:
        progress = told.bought if number == len(columns or llms) - 1 else told.bought_cheaper
        if columns:
            return recorded(frame, columns[number], texts, label_list, progress)
        model = llms[number]
        if callable(model):
            return function(model, texts, label_list, progress)
        paid = opened_store(store, config.store_max_cost)
        return server(model, texts, label_list, paid, account, config.max_cost, progress, told.said)

    sources = [source(number) for number in range(len(columns or llms))]
    oracle = sources[-1].oracle
    told.start(texts, label_list, [each.estimate for each in sources])
    for each in sources:
        each.oracle.ahead(np.array([], dtype=np.int64))  # what batches of an earlier start have answered
    digest = _digest(texts, label_list, [each.identity for each in sources], config, classes)
    book = ledger if isinstance(ledger, Ledger) else Ledger(Path(ledger or user_folder() / "ledger"))
    looks = _Looks(book, [*map(text_key, texts.texts)], config, digest, _described(columns, llms, config))
    if looks.earlier:
        told.said(looks.earlier)
    assets = assets or default_assets()
    encoder = named_encoder(config.encoder, assets)
    draws = DrawFile(user_folder() / "draws" / digest[:32]) if sources[-1].resumable else None
    if draws is not None and draws.has_begun:
        told.resumed()
    vectors = encoded(texts.texts, encoder, assets, mapper)
    if len(sources) == 1:
        side: VectorSide | CheaperSide = VectorSide(vectors)
    else:
        allowed = allowed_errors(config.target or DEFAULT_TARGET, len(texts.texts))
        cheaper = sources[0].oracle
        ratio = _price_ratio(sources)
        side = CheaperSide(vectors, cheaper, ratio, allowed, looks.forecast.spend, draws, cheaper.ahead)
    forecasts: list[Forecast] = []

    def watch(forecast: Forecast, at: Callable[[float], Forecast]) -> None:
        failures = oracle.reasons.by_unit
        if failures and not forecasts:
            reason = next(iter(failures.values()))
            told.said(f"{len(failures):,} of {forecast.bought:,} texts have no usable answer, such as: {reason}")
        forecasts.append(forecast)
        told.planned(forecast, at)

    def take_another() -> float:
        look = looks.take(again=True)
        told.said(f"There is money for a draw that proves the target. {look.sentence}")
        return look.spend

    job = Rounds(
        texts.copies_U,
        side,
        oracle,
        Promise(config.target, looks.forecast.spend, guarantees=classes),
        Schedule(pilot=min(200, max(50, len(texts.texts) // 15)), growth=0.3, slope=0.5),
        config.seed,
        purse=sources[-1].money,
        watch=watch,
        draws=draws,
        drawn=told.drawn,
        ahead=oracle.ahead,
        look=lambda: looks.take().spend,
        another=AnotherLook(question_delta(config.delta, looks.forecast.number + 1), take_another, sources[-1].paid),
    )
    try:
        found = job.run()
    except NoAnswers as error:
        said = next(iter(oracle.reasons.by_unit.values()), "")
        what = error.what if said in error.what else f"{error.what}: {said}"
        hint = error.hint or "Check --labels and --prompt; replies are kept, and only another --store asks again"
        raise NoAnswers(what, where=error.where, hint=hint) from None
    failed = int(texts.copies_U[found.failed_U].sum())
    look = looks.take(again=found.is_second_look)
    certificate = TableCertificate.of(
        found,
        target=config.target,
        delta=config.delta,
        spend=look.spend,
        look=look.number,
        seed=config.seed,
        failed=failed,
        bought_cheaper=side.num_bought if isinstance(side, CheaperSide) else 0,
    )
    accuracies = None if truth_N is None else measured(truth_N, texts.unit_N, found, oracle, sources[-1].money)
    models: _Models | None = None
    last = sources[-1]
    if encoder is not None and last.server is not None and last.store is not None:
        models = _Models(assets, encoder, vectors, last.server, last.store)
    labelled, named = _with_labels(frame, texts, label_list, found)
    return LabelledTable(
        frame=labelled,
        column=named["label"],
        certificate=certificate,
        cost=oracle.spent,
        labels=label_list,
        texts=texts,
        result=found,
        reasons=oracle.reasons,
        models=models,
        side=side.side if isinstance(side, CheaperSide) else side,
        forecasts=forecasts,
        estimate=sources[-1].estimate,
        accuracies=accuracies,
    )


class _Looks:
    """The looks of one job. They are recorded when a draw begins: a pilot and its plan have used nothing of delta."""

    def __init__(self, book: Ledger, texts: Sequence[str], config: LabelConfig, digest: str, purpose: str) -> None:
        self._book, self._units, self._delta = book, unit_hashes(texts), config.delta
        self._digest, self._purpose = digest, purpose
        self.forecast = book.preview(self._units, delta=config.delta, digest=digest)

    def take(self, *, again: bool = False) -> Look:
        """The first look of the job, or the second; an identical one costs nothing."""
        digest = f"{self._digest} again" if again else self._digest
        return self._book.look(self._units, delta=self._delta, digest=digest, purpose=self._purpose)

    @property
    def earlier(self) -> str:
        """A line about the last other job on these texts; empty if there was none."""
        others = [
            look
            for look in self._book.looks()
            if look.question == self.forecast.question and not look.digest.startswith(self._digest)
        ]
        return f"An earlier look was by: {others[-1].purpose}. {self.forecast.sentence}" if others else ""


def _check_models(num_columns: int, num_llms: int) -> None:
    """Raise ConfigError unless there are one or two columns of answers, or as many models."""
    hint = "Add --llm MODEL, or --answers COLUMN to replay recorded answers"
    if num_columns and num_llms:
        raise ConfigError("both an LLM and recorded answers", where="llm", hint="Drop --llm or --answers")
    if not num_columns + num_llms:
        raise ConfigError("no LLM given", where="llm", hint=hint)
    if num_columns + num_llms > 2:
        hint = "Give one, or a cheaper one and the one to agree with"
        raise ConfigError(f"{num_columns + num_llms} LLMs given", where="llm", hint=hint)


def _described(columns: Sequence[str], llms: Sequence[Any], config: LabelConfig) -> str:
    """The job in the ledger, for people."""
    names = columns or ["a function" if callable(llm) else llm.model for llm in llms]
    target = "" if config.target is None else f", target {config.target:g}"
    return f"label, {' and '.join(names)}{target}, seed {config.seed}"


def _labels(frame: pd.DataFrame, labels: Any, answers: Sequence[str], prompt: str | None) -> LabelList:
    """The label list; by default the values of the columns of recorded answers."""
    if labels is not None:
        return LabelList.of(labels, prompt)
    if not answers:
        raise ConfigError("no labels", where="labels", hint="Add --labels a,b,c, or a file with one label per line")
    return LabelList.of(sorted({each for column in answers for each in answers_in(frame, column).dropna()}), prompt)


def _listed(value: Any) -> list[Any]:
    """One or several, as a list."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _server(llm: Llm, base_url: str | None) -> OpenAiConfig | Callable[[list[str]], Sequence[Any]]:
    """The configuration of a model that is named; a function as it is."""
    return openai_config(llm, base_url) if isinstance(llm, str) else llm


def _paid_as(llm: OpenAiConfig | Callable[[list[str]], Sequence[Any]]) -> str:
    """What a job's spending is booked to, of a model; asked in batches or one by one it is the same."""
    return str(llm if callable(llm) else llm.model_copy(update={"batch": False}))


def _price_ratio(sources: Sequence[AnswerSource]) -> float:
    """The price of an answer of the cheaper model, in answers of the oracle; a fifteenth if prices are not known."""
    cheaper, dear = (each.estimate.currency if each.estimate else 0.0 for each in sources)
    return cheaper / dear if cheaper and dear else PRICE_RATIO


def _digest(
    texts: Texts,
    labels: LabelList,
    identities: Sequence[str],
    config: LabelConfig,
    classes: Sequence[Guarantee] = (),
) -> str:
    """What makes two jobs the same one: table, labels, prompt, model, promise and seed; not the money."""
    request = config.model_dump(mode="json", exclude={"max_cost", "store_max_cost"})
    parts: list[Any] = [labels.names, labels.prompt.model_dump(mode="json"), list(identities), request]
    parts += [asdict(each) for each in classes]
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
