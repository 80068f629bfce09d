"""Questions to the large model in bulk: by a pool of actors that hold it, or from this process to a server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter
from rich.markup import escape

from kcm.errors import DataError
from kcm.large import NO_PROMPT, Item, LargeConfig, LinearHead, Prompt, PromptMode, Resources
from kcm.large.response_cache import ResponseStore
from pipelines.batch.shards import FAILED, Counts, RowFunction, map_shards
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.store.outcomes import Answers
from pipelines.store.sequence import contents_of

RESPONSES_FILE = "paid.sqlite"
PROMPT = TypeAdapter(Prompt)  # how prompts are written in a column


@dataclass(frozen=True)
class LargeSpec:
    """A large model and its possible answers."""

    large: LargeConfig
    answer_names: tuple[str, ...]  # the label list, then none-of-these where it is an answer
    num_labels: int  # names of the label list


def row_answerer(spec: LargeSpec, mode: PromptMode, assets_dir: Path, resources: Resources) -> RowFunction:
    """A function that answers rows by the large model, under their column `prompt` where they have one.

    It counts rows, tokens and currency, and the reasons of answers that failed.
    """
    model = spec.large.build(spec.answer_names, assets_dir, resources)

    def answer(rows: pa.Table) -> tuple[pa.Table, Counts]:
        given = model.answer(_items(rows))
        answers = Answers.of(given, spec.num_labels)
        reasons = Counter(FAILED + (given[row].error or "") for row in np.flatnonzero(answers.failed_N).tolist())
        tokens, currency = (sum(getattr(one.cost, name) for one in given) for name in ("tokens", "currency"))
        return answers.table(rows, mode), {"rows": len(given), "tokens": tokens, "currency": currency} | reasons

    return answer


def ask_shards(
    context: Context,
    spec: LargeSpec,
    sources: Mapping[str, Path],
    folder: Path,
    mode: PromptMode = "none",
    *,
    scratch: Path,
    bar: Bar,
    head: LinearHead | None = None,
) -> tuple[dict[str, str], dict[str, Any]]:
    """Write a file with the answers to the rows of every shard to `folder`: their SHA-256 by name, and the usage.

    A server is asked from this process, which has the key; waiting takes no cores. Each of its answers is committed to
    the response cache of the storage, outside any artefact, so every configuration reuses it. Rows that failed in an
    interrupted attempt are asked again. `head` is that of a model that was fitted on train rows. Raises DataError when
    no row was answered.
    """
    remote = spec.large.remote
    if remote:
        responses = context.responses or ResponseStore.in_file(context.store.root / RESPONSES_FILE)
        resources = Resources(responses=responses)
    else:
        resources = Resources(context.cluster.device, head)
    hashes, counts = map_shards(
        sources,
        partial(row_answerer, spec, mode, context.assets_path, resources),
        folder,
        rows_per_unit=spec.large.rows_per_batch,
        cluster=None if remote else context.cluster,
        scratch=scratch,
        storage=context.store.storage,
        bar=bar,
    )
    reasons = {name.removeprefix(FAILED): count for name, count in counts.items() if name.startswith(FAILED)}
    usage = {name: counts.get(name, 0) for name in ("rows", "tokens", "currency") if remote or name != "currency"}
    if not reasons:
        return hashes, usage
    failed = sum(reasons.values())
    summary = f"{failed} of {usage['rows']} rows, most often: {max(reasons, key=reasons.__getitem__)}"
    if failed == usage["rows"]:
        raise DataError(f"the large model failed on {summary}", where="large", hint="Mend it and start again")
    context.reporter.say(f"[yellow]the large model failed on {escape(summary)}[/yellow]")
    return hashes, usage | {"failed": failed}


def _items(rows: pa.Table) -> list[Item]:
    prompts = (
        map(PROMPT.validate_json, rows["prompt"].to_pylist()) if "prompt" in rows.column_names else repeat(NO_PROMPT)
    )
    return [Item(*item) for item in zip(rows["id"].to_pylist(), contents_of(rows), prompts, strict=False)]
