"""`kcm.label`: labels for a table without any, bought from a large model as seldom as the promise allows.

Shapes: N rows, U different texts, C labels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kcm.api.cascade import Cascade
from kcm.api.rows import free_names
from kcm.assets.resolve import default_assets
from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import load_large
from kcm.bundle.runtime import SmallSide
from kcm.certification.finite import allowed_errors
from kcm.certification.ledger import Ledger
from kcm.config import parse_config
from kcm.encoders import EncoderConfig
from kcm.errors import ConfigError
from kcm.labelling.bundle import bundle_of
from kcm.labelling.certificate import Labelled, TableCertificate
from kcm.labelling.cheaper import CheaperSide
from kcm.labelling.config import DEFAULT_TARGET, LabelConfig
from kcm.labelling.encoding import DEFAULT_ENCODER, Mapper, encoded, in_process, named_encoder
from kcm.labelling.forecaster import Promise
from kcm.labelling.guarantees import Guarantee
from kcm.labelling.label_list import LabelList
from kcm.labelling.looks import DrawFile, JobLooks, described
from kcm.labelling.oracle import CallableOracle, Llm, RecordedOracle, ServerOracle, answers_in, opened_store
from kcm.labelling.plan import Schedule
from kcm.labelling.purchases import Oracle
from kcm.labelling.rounds import Rounds, Watcher
from kcm.labelling.text import Judge, VectorSide
from kcm.labelling.texts import Texts
from kcm.labelling.truth import NO_LABEL, Accuracies, measured, truth_codes
from kcm.large.adapters.openai import OpenAiConfig, openai_config
from kcm.large.base import Estimate
from kcm.large.prompts import MAX_CHARS
from kcm.large.response_cache import ResponseStore
from kcm.local_files import require_writable
from kcm.tasks.units import text_key
from kcm.user_folder import user_folder

PRICE_RATIO = 1 / 15

_MARGIN = 1.1  # of the money that a further plan should need


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
    models: _Models | None
    side: VectorSide
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
    def missing_cost(self) -> float | None:
        """The money that should prove the target, if it was too little; None if it was not, or no price is known.

        It is more than the plan's calls cost on average, since the texts that the plan buys may be longer.
        """
        plan, estimate = self.result.lacking, self.estimate
        if plan is None or estimate is None or not estimate.calls:
            return None
        return _MARGIN * math.ceil(plan.calls) * estimate.most / estimate.calls

    @property
    def no_bundle(self) -> str | None:
        """Why there is no bundle; None if there is one."""
        if self.models is None:
            return "a bundle needs an --llm to ask later, and a text encoder: --encoder words makes none"
        return "fewer than two answers were bought" if self.result.bought_U.sum() < 2 else None

    @cached_property
    def bundle(self) -> Bundle:
        """The small model for the next file, not certified. Raises ConfigError if there is none."""
        models = self.models
        if models is None or self.no_bundle:
            raise ConfigError(f"no bundle: {self.no_bundle}", where="label")
        return bundle_of(
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
    >>> table = label(frame, labels=["pos", "neg"], encoder="words",
    ...               llm=lambda texts: ["pos" if text.startswith("good") else "neg" for text in texts])
    >>> bool(table.certificate.certified), table.certificate.bought < len(frame)
    (True, True)
    """
    config = parse_config(LabelConfig, options, where="kcm.label", name="option")
    if config.target is None and not guarantees:
        config = config.model_copy(update={"target": DEFAULT_TARGET})
    columns, llms = _listed(answers), _listed(llm)
    _check_models(len(columns), len(llms))
    llms = [openai_config(model, base_url) if isinstance(model, str) else model for model in llms]
    texts, names = Texts.of(frame, text), _labels(frame, labels, columns, prompt)
    classes = Guarantee.parsed(guarantees, names.names)
    truth_N = None if truth is None else truth_codes(frame, truth, names.names, texts.unit_N)
    job = _Job(frame, texts, names, config, classes, columns, llms, watcher or Watcher())
    oracles = job.oracles(store)
    num_compared = 0 if truth_N is None else len(set(texts.unit_N[truth_N != NO_LABEL]))
    job.watcher.start(texts, names, [source.estimate for source in oracles], num_compared)
    looks, draws = job.looks(oracles, ledger)
    side, models = job.small_model(oracles, looks, draws, assets or default_assets(), mapper)
    promise = Promise(config.target, looks.forecast(), classes)
    schedule = Schedule(pilot=min(200, max(50, len(texts.texts) // 15)), growth=0.3, slope=0.5)
    places: dict[str, Any] = {"watcher": job.watcher, "draws": draws, "looks": looks}
    result = Rounds(texts.copies_U, side, oracles[-1], promise, schedule, config.seed, **places).run()
    labelled, named = _with_labels(frame, texts, names, result)
    return LabelledTable(
        frame=labelled,
        column=named["label"],
        certificate=TableCertificate.of(
            result,
            target=config.target,
            delta=config.delta,
            seed=config.seed,
            look=looks.taken(again=result.is_second_look),
            bought_cheaper=side.num_bought if isinstance(side, CheaperSide) else 0,
        ),
        cost=oracles[-1].spent,
        labels=names,
        texts=texts,
        result=result,
        models=models,
        side=side.side if isinstance(side, CheaperSide) else side,
        estimate=oracles[-1].estimate,
        accuracies=None if truth_N is None else measured(truth_N, texts.unit_N, result, oracles[-1]),
    )


@dataclass(frozen=True, eq=False)
class _Job:
    """What is asked for: a table, its labels and promises, and who answers: `columns` or `llms`, the oracle last."""

    frame: pd.DataFrame
    texts: Texts
    labels: LabelList
    config: LabelConfig
    guarantees: Sequence[Guarantee]
    columns: Sequence[str]
    llms: Sequence[Any]
    watcher: Watcher

    def digest(self, identities: Iterable[str]) -> str:
        """What makes two jobs the same one: table, labels, prompt, model, promise and seed; not the money.

        `identities` name what decides the answers.
        """
        request = self.config.model_dump(mode="json", exclude={"max_cost"})
        prompt = self.labels.prompt.model_dump(mode="json")
        parts = [self.labels.names, prompt, [*identities], request, *map(asdict, self.guarantees)]
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode())
        for text in self.texts.texts:
            digest.update(hashlib.sha256(text.encode(errors="surrogatepass")).digest())
        digest.update(np.ascontiguousarray(self.texts.copies_U).tobytes())
        return digest.hexdigest()

    def oracles(self, store: ResponseStore | str | Path | None) -> list[Oracle]:
        """Whom the job asks: the oracle last, and a cheaper model before it, if there is one."""
        texts, names, told = self.texts, self.labels.names, [self.watcher.bought_cheaper, self.watcher.bought]
        told = told[-len(self.columns or self.llms) :]
        oracles: list[Oracle] = [
            RecordedOracle(self.frame, column, texts, names, tell)
            for column, tell in zip(self.columns, told, strict=False)
        ]
        account = f"label {self.digest(map(_paid_as, self.llms))[:32]}"
        for model, tell in zip(self.llms, told, strict=False):
            if callable(model):
                oracles.append(CallableOracle(model, texts.texts, names, tell))
            else:
                limits = opened_store(store), account, self.config.max_cost
                oracles.append(ServerOracle(model, texts.texts, self.labels, *limits, tell, self.watcher.said))
        return oracles

    def looks(self, oracles: Sequence[Oracle], ledger: Ledger | str | Path | None) -> tuple[JobLooks, DrawFile | None]:
        """The looks of the job in a ledger, and its draws, if answers outlast this process; says what went before.

        Raises ArtefactError if either cannot be written.
        """
        if oracles[-1].resumable:
            require_writable(user_folder(), "The draw is kept here: set XDG_DATA_HOME")
        if not isinstance(ledger, Ledger):
            folder = Path(ledger or user_folder() / "ledger")
            require_writable(folder, "Name another --ledger")
            ledger = Ledger(folder)
        for source in oracles:
            source.ahead(np.array([], dtype=np.int64))  # what batches of an earlier start have answered
        digest = self.digest(source.identity for source in oracles)
        draws = DrawFile(user_folder() / "draws" / digest[:32]) if oracles[-1].resumable else None
        units = (text_key(unit[:MAX_CHARS]) for unit in self.texts.texts)  # never prompt, labels or model
        purpose = described(self.columns, self.llms, self.config)
        looks = JobLooks(ledger, units, self.config.delta, digest, purpose, self.watcher.said, draws)
        if looks.earlier:
            self.watcher.said(looks.earlier)
        if looks.has_begun:
            self.watcher.resumed()
        return looks, draws

    def small_model(
        self, oracles: Sequence[Oracle], looks: JobLooks, draws: DrawFile | None, assets: Path, mapper: Mapper
    ) -> tuple[VectorSide | CheaperSide, _Models | None]:
        """Encode the texts; the small model that reads their vectors, and what a bundle is made of, if one can be."""
        encoder, texts, oracle = named_encoder(self.config.encoder, assets), self.texts.texts, oracles[-1]
        if encoder is None and self.config.encoder == "auto":
            self.watcher.said(
                f"{DEFAULT_ENCODER} cannot be had: the small model reads words alone, and more calls are needed"
            )
        vectors_UD = encoded(texts, encoder, assets, mapper)
        models: _Models | None = None
        if encoder is not None and oracle.server is not None and oracle.store is not None:
            models = _Models(assets, encoder, vectors_UD, oracle.server, oracle.store)
        if len(oracles) < 2:
            return VectorSide(vectors_UD), models
        allowed = allowed_errors(self.config.target or DEFAULT_TARGET, len(texts))
        ratio = _price_ratio(oracles)
        return CheaperSide(vectors_UD, oracles[0], ratio, allowed, looks.forecast(), draws), models


def _check_models(num_columns: int, num_llms: int) -> None:
    """Raise ConfigError unless there are one or two columns of answers, or as many models."""
    if not num_columns + num_llms:
        hint = "Add --llm MODEL, or --answers COLUMN to replay recorded answers"
        raise ConfigError("no LLM given", where="llm", hint=hint)
    if (num_columns and num_llms) or num_columns + num_llms > 2:
        hint = "Give one or two LLMs (a cheaper one first), or one or two columns"
        raise ConfigError(f"{num_llms} --llm and {num_columns} --answers given", where="llm", hint=hint)


def _labels(frame: pd.DataFrame, labels: Any, answers: Sequence[str], prompt: str | None) -> LabelList:
    """The label list; by default the values of the columns of recorded answers."""
    if labels is not None:
        return LabelList.of(labels, prompt)
    if not answers:
        raise ConfigError("no labels", where="labels", hint="Add --labels a,b,c, or a file with one label per line")
    return LabelList.of(sorted({answer for column in answers for answer in answers_in(frame, column).dropna()}), prompt)


def _listed(value: Any) -> list[Any]:
    """One or several, as a list."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _paid_as(llm: OpenAiConfig | Callable[[list[str]], Sequence[Any]]) -> str:
    """What a job's spending is booked to, of a model; asked in batches or one by one it is the same."""
    return str(llm if callable(llm) else llm.model_copy(update={"batch": False}))


def _price_ratio(oracles: Sequence[Oracle]) -> float:
    """The price of an answer of the cheaper model, in answers of the oracle; a fifteenth if prices are not known."""
    cheaper, dear = (oracle.estimate.currency if oracle.estimate else 0.0 for oracle in oracles)
    return cheaper / dear if cheaper and dear else PRICE_RATIO


def _with_labels(
    frame: pd.DataFrame, texts: Texts, labels: LabelList, labelled: Labelled
) -> tuple[pd.DataFrame, dict[str, str]]:
    """A copy of the frame with label, source and probability, and the names of these columns there."""
    names = np.array([*labels.names], dtype=object)
    source_U = np.where(labelled.bought_U, "llm", np.where(labelled.failed_U, "failed", "small")).astype(object)
    known_N = texts.unit_N >= 0
    unit_N = np.where(known_N, texts.unit_N, 0)
    label_N, source_N = names[labelled.answer_U[unit_N]], source_U[unit_N]
    label_N[~known_N] = source_N[~known_N] = None
    columns = {
        "label": label_N,  # no Series: an index may repeat
        "label_source": source_N,
        "label_probability": np.where(known_N, 1 - labelled.wrong_U[unit_N], np.nan),
    }
    named = free_names(columns, frame.columns)
    return frame.assign(**{named[name]: column for name, column in columns.items()}), named
