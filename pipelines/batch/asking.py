"""Questions to the large model in bulk: by a pool of actors that hold it, or from this process to a server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.markup import escape

from kcm.errors import DataError
from kcm.inputs.content import contents
from kcm.large import Item, LargeAnswer, LargeConfig, Prompt, Resources
from kcm.large.response_cache import ResponseStore
from pipelines.batch.pool import ROW, map_rows, retain
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.store.features import rows_of_lists
from pipelines.store.outcomes import Answers, usage_of

RESPONSES_FILE = "paid.sqlite"
QUESTIONS = ("id", "text", "image", "prompt")  # columns of the rows that are asked about


@dataclass(frozen=True)
class LargeSpec:
    """A large model and its possible answers."""

    large: LargeConfig
    answer_names: tuple[str, ...]  # the label list, then none-of-these where it is an answer
    num_labels: int  # names of the label list


class Ask:
    """Actor that holds the large model and answers rows."""

    def __init__(self, spec: LargeSpec, assets_dir: Path, device: str) -> None:
        self._model = spec.large.build(spec.answer_names, assets_dir, Resources(device))
        self._num_labels = spec.num_labels

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Answer the columns `id`, `text`, `image` and `prompt`."""
        answers = self._model.answer(_items({name: batch[name].tolist() for name in QUESTIONS}))
        answered = Answers.of(answers, self._num_labels)
        return {
            ROW: batch[ROW],
            "label": answered.label_N,
            "probabilities": answered.probabilities_NC,
            "cost": answered.cost_N,
            "failed": answered.failed_N,
            "reason": np.array([answer.error or "" for answer in answers], dtype=object),
            "tokens": np.array([answer.cost.tokens for answer in answers], dtype=np.int64),
        }


def ask(
    context: Context, spec: LargeSpec, rows: pa.Table, *, scratch: Path, bar: Bar
) -> tuple[Answers, dict[str, Any]]:
    """The answers to `rows` (columns `QUESTIONS`), in order, and the total tokens and cost.

    Answers of an interrupted attempt are reused. Raises DataError when no row was answered.
    """
    if spec.large.remote:
        answered, took, reasons = _ask_here(context, spec, rows, bar)
    else:
        answered, took, reasons = _ask_actors(context, spec, rows, scratch, bar)
    failed = [reason for reason, fails in zip(reasons, answered.failed_N, strict=True) if fails]
    if not failed:
        return answered, took
    summary = f"{len(failed)} of {len(rows)} rows, most often: {Counter(failed).most_common(1)[0][0]}"
    if len(failed) == len(rows):
        raise DataError(f"the large model failed on {summary}", where="large", mend="Mend it and start again")
    context.reporter.say(f"[yellow]the large model failed on {escape(summary)}[/yellow]")
    return answered, took | {"failed": len(failed)}


def _ask_here(context: Context, spec: LargeSpec, rows: pa.Table, bar: Bar) -> tuple[Answers, dict[str, Any], list[str]]:
    """Ask a server from this process, which has the key; waiting takes no cores.

    Answers are kept in the store, outside any artefact, so that every configuration reuses them.
    """
    responses = context.responses or ResponseStore.in_file(context.store.root / RESPONSES_FILE)
    model = spec.large.build(spec.answer_names, context.assets_path, Resources(responses=responses))
    items = _items(rows.select(QUESTIONS).to_pydict())
    answers: list[LargeAnswer] = []
    bar.update(0, len(items))
    for start in range(0, len(items), spec.large.rows_per_batch):
        answers += model.answer(items[start : start + spec.large.rows_per_batch])
        bar.update(len(answers), len(items))
    return Answers.of(answers, spec.num_labels), usage_of(answers), [answer.error or "" for answer in answers]


def _ask_actors(
    context: Context, spec: LargeSpec, rows: pa.Table, scratch: Path, bar: Bar
) -> tuple[Answers, dict[str, Any], list[str]]:
    """Ask a pool of actors that each hold the model; failed rows of an interrupted attempt are asked again."""
    retain(scratch, ~pc.field("failed"), context.store.storage)
    parts = map_rows(
        rows,
        pc.utf8_length(rows["text"]).to_numpy(),
        Ask,
        {"spec": spec, "assets_dir": context.assets_path, "device": context.cluster.device},
        batch_size=spec.large.rows_per_batch,
        cluster=context.cluster,
        scratch=scratch,
        storage=context.store.storage,
        bar=bar,
    )
    answers = parts.to_table().sort_by(ROW)
    answered = Answers(
        label_N=answers["label"].to_numpy(),
        probabilities_NC=rows_of_lists(answers["probabilities"]),
        cost_N=answers["cost"].to_numpy(),
        failed_N=answers["failed"].to_numpy(),
    )
    took = {"rows": len(rows), "tokens": int(answers["tokens"].to_numpy().sum())}
    return answered, took, answers["reason"].to_pylist()


def _items(columns: Mapping[str, Sequence[Any]]) -> list[Item]:
    shown = contents(columns["text"], columns["image"])
    return [
        Item(row_id, content, read_prompt(prompt))
        for row_id, content, prompt in zip(columns["id"], shown, columns["prompt"], strict=True)
    ]


def written_prompt(prompt: Prompt) -> str:
    """A prompt as text, for a column."""
    return json.dumps(asdict(prompt))


def read_prompt(text: str) -> Prompt:
    """What `written_prompt` wrote."""
    value = json.loads(text)
    suggestions = tuple((int(label), float(probability)) for label, probability in value["suggestions"])
    return Prompt(value["mode"], suggestions, tuple(value["candidates"]))
