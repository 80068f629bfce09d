"""Questions to the large model in bulk: by a pool of actors that hold it, or from this process to a server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
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
from kcm.large import NO_PROMPT, Item, LargeConfig, LargeModel, Prompt, PromptMode, Resources
from kcm.large.base import Estimate, PaidModel
from kcm.large.response_cache import STORE_FILE, ResponseStore
from pipelines.batch.pricing import money, say_paid
from pipelines.batch.shards import map_shards, shard_reader, sizes_of
from pipelines.batch.units import FAILED, Counts, RowFunction
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.store.outcomes import Answers
from pipelines.store.sequence import contents_of

PROMPT = TypeAdapter(Prompt)  # how prompts are written in a column
UNITS_AT_ONCE = 4  # groups under way at a server: while one waits for its slowest question, the next is asked
_OFF_LABEL = "off the label list: "  # begins the counts of replies
_ROWS_AT_ONCE = 64  # answered and committed together, unless a server's model says how many
_SHOWN = 3  # replies off the label list that each call counts by their words; as many are reported


@dataclass(frozen=True)
class LargeSpec:
    """A large model and its possible answers."""

    large: LargeConfig
    answer_names: tuple[str, ...]  # the label list, then none-of-these if it is an answer
    num_labels: int  # names of the label list


class FailureLimit:
    """Ends a pass when more rows have failed than may; threads share it."""

    def __init__(self, share: float, num_rows: int) -> None:
        self._share, self._num_rows, self._reasons = share, num_rows, Counter[str]()
        self._lock = threading.Lock()

    def count(self, reasons: Counter[str]) -> None:
        """Raise DataError where these rows that failed, by their reasons, are too many with those before."""
        with self._lock:
            self._reasons += reasons
            num_failed = self._reasons.total()
        if num_failed == self._num_rows or num_failed > self._share * self._num_rows:
            reason = self._reasons.most_common(1)[0][0].removeprefix(FAILED)
            allowed = f"; large.max_failed allows {self._share:.1%}" if self._share < 1 else ""
            raise DataError(
                f"the large model failed on {num_failed:,} of {self._num_rows:,} rows{allowed}, most often: {reason}",
                where="large",
                hint="Start again once it answers: the answers that came are kept, and only the others are asked",
            )


def row_answerer(
    model: LargeModel, spec: LargeSpec, mode: PromptMode, count: Callable[[Counter[str]], None] = lambda reasons: None
) -> RowFunction:
    """A function that answers rows by the large model, under their column `prompt` if there is one.

    It counts rows, tokens and currency, answers off the label list with some of their words, and the reasons of answers
    that failed, which `count` is told; `waiting` are those that the server is to blame for. It raises DataError for an
    answer that makes no sense.
    """

    def answer(rows: pa.Table) -> tuple[pa.Table, Counts]:
        large_answers = model.answer(_items(rows))
        for row, one in zip(rows["id"], large_answers, strict=True):
            if fault := one.fault(len(spec.answer_names)):
                raise DataError(f"the large model gave {fault}, to row {row.as_py()!r}", where="large")
        answers = Answers.of(large_answers, spec.num_labels)
        failed = [large_answers[row] for row in np.flatnonzero(answers.failed_N).tolist()]
        reasons = Counter(FAILED + (one.error or "") for one in failed)
        count(reasons)
        counts: Counts = {
            name: sum(getattr(one.cost, name) for one in large_answers) for name in ("tokens", "currency")
        }
        replies = [one.reply for one in large_answers if one.off_label]
        counts |= {"rows": len(large_answers), "waiting": sum(one.outage for one in failed), "off_label": len(replies)}
        return answers.table(rows, mode), counts | reasons | Counter(_OFF_LABEL + reply for reply in replies[:_SHOWN])

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
) -> dict[str, Any]:
    """Write a file with the answers to the rows of every shard to `folder`; the usage.

    A server is asked from this process, which has the key; waiting takes no cores. Each of its answers is committed to
    the response cache of the storage, outside any artefact, so every configuration reuses it. Rows that failed in an
    interrupted attempt are asked again. Raises DataError when no row was answered, or more failed than `max_failed` of
    the model allows.
    """
    storage, say = context.store.storage, context.reporter.say
    common: dict[str, Any] = {"scratch": scratch, "storage": storage, "bar": bar, "rows_per_unit": _ROWS_AT_ONCE}
    if spec.large.remote:
        model, sizes = server_model(context, spec), sizes_of(sources, storage)
        paid_before = _say_estimate(context, spec, model, sources, sizes)
        max_failed = 1.0
        if isinstance(model, PaidModel):
            max_failed, common["rows_per_unit"] = model.max_failed, model.rows_per_batch
        limit = FailureLimit(max_failed, sum(sizes.values()))
        answer = row_answerer(model, spec, mode, limit.count)
        try:
            if isinstance(model, PaidModel):
                model.ask_ahead(_items_of(context, sources, sizes))
            counts = map_shards(sources, lambda: answer, folder, cluster=None, units_at_once=UNITS_AT_ONCE, **common)
        except BaseException:  # nothing more is asked, or the process would go on paying
            if isinstance(model, PaidModel):
                model.close()
            raise
        if isinstance(model, PaidModel):
            say_paid(model, paid_before, context.reporter)
    else:
        resources = Resources(context.cluster.device)
        build = partial(_local_answerer, spec, mode, context.assets_path, resources)
        counts = map_shards(sources, build, folder, cluster=context.cluster, **common)
    usage = _usage(counts, spec.large.remote)
    if reasons := Counter({name: int(count) for name, count in counts.items() if name.startswith(FAILED)}):
        if not spec.large.remote:
            FailureLimit(1.0, usage["rows"]).count(reasons)
        reason = reasons.most_common(1)[0][0].removeprefix(FAILED)
        later = "; the next run asks again" if usage["waiting"] else ""
        say(
            f"[yellow]the large model failed on {usage['failed']} of {usage['rows']} rows{later}; most often:"
            f" {escape(reason)}[/yellow]"
        )
    if usage["off_label"]:
        share, example = usage["off_label"] / usage["rows"], escape(repr(usage["off_label_replies"][0]))
        say(
            f"[yellow]{usage['off_label']} of {usage['rows']} answers ({share:.1%}) are not on the label list and count"
            f" as wrong, such as {example}[/yellow]"
        )
    return usage


def server_model(context: Context, spec: LargeSpec) -> LargeModel:
    """The model behind a server, with the paid answers of the storage; it says on the terminal when it is gone."""
    responses = context.responses or ResponseStore.in_file(context.store.root / STORE_FILE)
    warn = lambda line: context.reporter.say(f"[yellow]{escape(line)}[/yellow]")  # noqa: E731
    return spec.large.build(spec.answer_names, context.assets_path, Resources(responses=responses, warn=warn))


def _local_answerer(spec: LargeSpec, mode: PromptMode, assets_dir: Path, resources: Resources) -> RowFunction:
    return row_answerer(spec.large.build(spec.answer_names, assets_dir, resources), spec, mode)


def _say_estimate(
    context: Context, spec: LargeSpec, model: LargeModel, sources: Mapping[str, Path], sizes: Mapping[str, int]
) -> tuple[int, float]:
    """Say what the answers to all rows will take; the calls and currency that were paid before."""
    if not isinstance(model, PaidModel):
        return 0, 0.0
    total, num_rows = Estimate(), 0
    for items in _items_of(context, sources, sizes):
        total, num_rows = total + model.estimate(items), num_rows + len(items)
    paid_before = model.spent()
    context.reporter.say(
        f"asking {escape(spec.large.location)}: {total.calls:,} calls for {num_rows:,} rows, about"
        f" {total.tokens:,.0f} tokens{money(total.currency)}{money(total.most, ' at most')}; paid before on this"
        f" storage: {paid_before[0]:,} calls{money(paid_before[1])}"
    )
    return paid_before


def _usage(counts: Counts, remote: bool) -> dict[str, Any]:
    """The total cost of the answers, and their faults."""
    usage: dict[str, Any] = {name: counts.get(name, 0) for name in ("rows", "tokens", "waiting", "off_label")}
    usage["failed"] = sum(int(count) for name, count in counts.items() if name.startswith(FAILED))
    replies = Counter({name: count for name, count in counts.items() if name.startswith(_OFF_LABEL)})
    usage["off_label_replies"] = [name.removeprefix(_OFF_LABEL) for name, _ in replies.most_common(_SHOWN)]
    return usage | ({"currency": counts.get("currency", 0)} if remote else {})


def _items_of(context: Context, sources: Mapping[str, Path], sizes: Mapping[str, int]) -> Iterator[list[Item]]:
    """All items, a row group at a time."""
    read = shard_reader(context.store.storage)
    return (_items(rows) for name, source in sources.items() for rows in read(source, 0, sizes[name]))


def _items(rows: pa.Table) -> list[Item]:
    prompts = (
        map(PROMPT.validate_json, rows["prompt"].to_pylist()) if "prompt" in rows.column_names else repeat(NO_PROMPT)
    )
    return [Item(*item) for item in zip(rows["id"].to_pylist(), contents_of(rows), prompts, strict=False)]
