"""A trained cascade in one process: for notebooks, services, evaluation and batch prediction."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from kcm.api.rows import Column, inputs_of, with_answers
from kcm.assets.resolve import assets_folder, default_assets
from kcm.bundle import folder_of
from kcm.bundle.answers import Answer, Failure, Input, Unreadable
from kcm.bundle.bundle import Bundle, facts
from kcm.bundle.frozen_models import load_large
from kcm.bundle.runtime import SmallSide, fault_of, load_small_side
from kcm.encoders.precomputed import vector_columns
from kcm.explain.explanation import Explanation, explain_with
from kcm.inputs.content import Content
from kcm.large import AsksEach, LargeModel, UpstreamConfig

if TYPE_CHECKING:  # imports a database, which only paid models need
    from kcm.large.response_cache import ResponseStore

Inputs: TypeAlias = Iterable[str | Content | Mapping[str, Any]]

# Cascades in one process may share an encoder, whose tokenizer allows one thread at a time, and torch uses all cores
# anyway. A large model behind a server runs outside this lock.
_COMPUTING = threading.Lock()


class Cascade:
    """Both sides of a bundle; see `load`. Any number of threads may use it together.

    `void` says why the bundle's certificate does not hold in this process; None if it holds or if there is none.
    """

    def __init__(self, small_side: SmallSide, large_model: LargeModel, void: str | None = None) -> None:
        self.small_side, self.large_model, self.void = small_side, large_model, void

    @property
    def bundle(self) -> Bundle:
        """The bundle behind the cascade: labels, tasks, policy, certificates, metrics, lineage."""
        return self.small_side.bundle

    def predict(
        self,
        inputs: pd.DataFrame | Inputs,
        *,
        text: Column = "text",
        image: Column = "image",
        task: Column = "task",
        id: Column = "id",
    ) -> Any:
        """Answers to many inputs, in order.

        For a DataFrame, the result is a copy with the columns label, judge_confidence, answer_probability, gate_score,
        route, cost_s and error; a name that the frame already has gets the prefix `kcm_`. For anything else, the result
        is a list of `Answer`s, with a `Failure` for an input that cannot be answered. Inputs are texts, `Content`s, or
        mappings such as the rows of a data set.

        `text`, `image`, `task` and `id` are the columns of a DataFrame or the keys of a mapping; `task` and `id` are
        optional. A picture is bytes, a path or a PIL image. A vector has the columns of the bundle's encoder, or is the
        list `features`. Raises DataError for a missing column, and for a single text in place of many.
        """
        vector = vector_columns(self.bundle.encoder)
        requests = inputs_of(inputs, self.bundle.reads, text=text, image=image, task=task, id=id, vector=vector)
        faults = [fault_of(self.bundle, example) for example in requests]
        model_answers = iter(
            self.answer([example for example, fault in zip(requests, faults, strict=True) if fault is None])
        )
        answers = [next(model_answers) if fault is None else Unreadable(fault) for fault in faults]
        return with_answers(inputs, answers) if isinstance(inputs, pd.DataFrame) else answers

    def answer(self, inputs: Sequence[Input]) -> list[Answer | Failure]:
        """One answer per input, in order; only escalated inputs are sent to the large model."""
        with _COMPUTING:
            judgements = self.small_side.judge(inputs)
        questions = self.small_side.questions(inputs, judgements)
        elsewhere = isinstance(self.large_model, AsksEach)
        turn: AbstractContextManager[Any] = nullcontext() if elsewhere else _COMPUTING
        with turn:
            large = self.large_model.answer(questions)
        return self.small_side.answers(judgements, large)

    def explain(self, given: str | Content, top: int = 10) -> Explanation:
        """Why the small side answers as it does: the effect of each word, and the `top` contributions per network.

        Raises DataError for an input that cannot be read, or that lacks a part the bundle reads.
        """
        content = Content(given) if isinstance(given, str) else given
        with _COMPUTING:
            return explain_with(self.small_side, content, top)

    def __repr__(self) -> str:
        described = ", ".join(f"{name}: {fact}" for name, fact in facts(self.bundle, self.void).items())
        return f"<Cascade {described}>"


def load(
    source: str | Path,
    *,
    assets: Path | str | None = None,
    device: str = "cpu",
    top_k: int | None = None,
    upstreams: Sequence[UpstreamConfig] = (),
) -> Cascade:
    """The cascade in a bundle's folder, or at `models:/NAME@ALIAS` or `models:/NAME/VERSION` in a model registry.

    `assets` is a folder or bucket with models by their ids; default: KCM_ASSETS in the environment, or `assets` in the
    current folder. Other models come from the hub. `top_k` is the number of labels listed in each answer; default: all.
    `upstreams` are the servers that the bundle's large model may be called at. Raises KcmError for a missing source, a
    bundle that cannot be used, and weights other than its own.
    """
    assets_dir = assets_folder(assets) if assets else default_assets()
    return load_cascade(folder_of(source), assets_dir, device, top_k, upstreams=upstreams)


def load_cascade(
    folder: Path,
    assets_dir: Path,
    device: str = "cpu",
    top_k: int | None = None,
    *,
    upstreams: Sequence[UpstreamConfig] = (),
    responses: ResponseStore | None = None,
) -> Cascade:
    """Both sides of the bundle in `folder`.

    Raises ArtefactError for a damaged bundle, and for an encoder or a large model other than the bundle's own,
    ConfigError for a large model at an address that is not among `upstreams`.
    """
    bundle = Bundle.read(folder)
    small_side = load_small_side(bundle, assets_dir, device, top_k)
    large_model = load_large(bundle, assets_dir, device, upstreams=upstreams, responses=responses)
    return Cascade(small_side, large_model, bundle.void_on(device, device))
