"""Questions to the large model in bulk: by a pool of actors that hold it, or from this process to a server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from rich.markup import escape

from kcm.errors import DataError
from kcm.large import NO_PROMPT, Item, LargeAnswer, LargeConfig, LinearHead, Prompt, PromptMode, Resources
from kcm.large.response_cache import ResponseStore
from pipelines.batch.pieces import UNFINISHED, Took
from pipelines.batch.pool import Made, map_shards
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.store.outcomes import FAILED, Answers
from pipelines.store.sequence import contents_of

RESPONSES_FILE = "paid.sqlite"


@dataclass(frozen=True)
class LargeSpec:
    """A large model and its possible answers."""

    large: LargeConfig
    answer_names: tuple[str, ...]  # the label list, then none-of-these where it is an answer
    num_labels: int  # names of the label list


class Ask:
    """Holds the large model and answers rows, under their column `prompt` where they have one."""

    unfinished: ClassVar[str | None] = FAILED

    def __init__(self, spec: LargeSpec, mode: PromptMode, assets_dir: Path, resources: Resources) -> None:
        self._model = spec.large.build(spec.answer_names, assets_dir, resources)
        self._num_labels, self._mode = spec.num_labels, mode
        self._together = spec.large.rows_per_batch

    def __call__(self, rows: pa.Table, source: Path) -> tuple[pa.Table, Took]:
        """The answers, and the tokens and currency that they took, with the reasons of those that failed."""
        items = _items(rows)
        answers: list[LargeAnswer] = []
        for start in range(0, len(items), self._together):
            answers += self._model.answer(items[start : start + self._together])
        answered = Answers.of(answers, self._num_labels)
        return answered.table(rows, self._mode), _took(answers, answered.failed_N)


def ask_shards(
    context: Context,
    spec: LargeSpec,
    sources: Mapping[str, Path],
    mode: PromptMode = "none",
    *,
    scratch: Path,
    bar: Bar,
    head: LinearHead | None = None,
) -> tuple[dict[str, Made], dict[str, Any]]:
    """A file with the answers to the rows of every shard: the files by name below `scratch`, and what all took.

    A server is asked from this process, which has the key; waiting takes no cores. Its answers are kept in the store,
    outside any artefact, so that every configuration reuses them. Rows that failed in an interrupted attempt are asked
    again. `head` is that of a model that was fitted on train rows. Raises DataError when no row was answered.
    """
    if spec.large.remote:
        resources = Resources(responses=_responses(context))
    else:
        resources = Resources(context.cluster.device, head)
    made, took = map_shards(
        sources,
        Ask,
        {"spec": spec, "mode": mode, "assets_dir": context.assets_path, "resources": resources},
        rows_per_piece=spec.large.rows_per_batch,
        cluster=None if spec.large.remote else context.cluster,
        scratch=scratch,
        storage=context.store.storage,
        bar=bar,
    )
    reasons = {name.removeprefix(UNFINISHED): n for name, n in took.items() if name.startswith(UNFINISHED)}
    counted = ("rows", "tokens", "currency") if spec.large.remote else ("rows", "tokens")
    usage = {name: took.get(name, 0) for name in counted}
    if not reasons:
        return made, usage
    failed = sum(reasons.values())
    summary = f"{failed} of {usage['rows']} rows, most often: {max(reasons, key=reasons.__getitem__)}"
    if failed == usage["rows"]:
        raise DataError(f"the large model failed on {summary}", where="large", hint="Mend it and start again")
    context.reporter.say(f"[yellow]the large model failed on {escape(summary)}[/yellow]")
    return made, usage | {"failed": failed}


def _took(answers: Sequence[LargeAnswer], failed_N: np.ndarray) -> Took:
    reasons = Counter(UNFINISHED + (answers[row].error or "") for row in np.flatnonzero(failed_N).tolist())
    tokens, currency = (sum(getattr(each.cost, name) for each in answers) for name in ("tokens", "currency"))
    return {"rows": len(answers), "tokens": tokens, "currency": currency} | reasons


def _responses(context: Context) -> ResponseStore:
    return context.responses or ResponseStore.in_file(context.store.root / RESPONSES_FILE)


def _items(rows: pa.Table) -> list[Item]:
    prompts = map(read_prompt, rows["prompt"].to_pylist()) if "prompt" in rows.column_names else repeat(NO_PROMPT)
    return [Item(*item) for item in zip(rows["id"].to_pylist(), contents_of(rows), prompts, strict=False)]


def written_prompt(prompt: Prompt) -> str:
    """A prompt as text, for a column."""
    return json.dumps(asdict(prompt))


def read_prompt(text: str) -> Prompt:
    """What `written_prompt` wrote."""
    value = json.loads(text)
    suggestions = tuple((int(label), float(probability)) for label, probability in value["suggestions"])
    return Prompt(value["mode"], suggestions, tuple(value["candidates"]))
