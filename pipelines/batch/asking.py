"""Ask the large model about many rows: in a pool of actors that hold the model, or at a server from this process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.markup import escape

from kcm.errors import DataError
from kcm.large import Item, LargeConfig, LargeModel, Resources
from kcm.large.base import PaidModel
from kcm.large.response_cache import STORE_FILE, ResponseStore
from pipelines.batch.pricing import paying, price_of_all
from pipelines.batch.shards import map_shards, shard_reader, sizes_of
from pipelines.batch.units import FAILED, Counts, RowFunction
from pipelines.context import Attempt, Context
from pipelines.progress import Reporter
from pipelines.store.outcomes import Answers
from pipelines.store.sequence import Names, contents_of

UNITS_AT_ONCE = 4  # units that are asked concurrently: while one waits for its slowest question, the next is asked
_OFF_LABEL = "off the label list: "  # prefix of the counts of replies
_ROWS_AT_ONCE = 64  # rows that are answered and committed together, unless the model of a server sets the number
_SHOWN = 3  # replies off the label list that each call counts by their text; as many are reported


class FailureLimit:
    """Ends a pass when more rows have failed than allowed; threads share an instance."""

    def __init__(self, share: float, num_rows: int) -> None:
        self._share, self._num_rows, self._reasons = share, num_rows, Counter[str]()
        self._lock = threading.Lock()

    def count(self, reasons: Counter[str]) -> None:
        """Count failed rows by their reasons. DataError if too many rows have failed so far."""
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
    model: LargeModel, names: Names, count: Callable[[Counter[str]], None] = lambda reasons: None
) -> RowFunction:
    """A function that asks the large model about rows.

    It counts rows, tokens, currency, answers off the label list with some of their texts, failed answers by reason, and
    `waiting`: the answers that failed because of the server. `count` receives the reasons. The function raises
    DataError for an invalid answer.
    """

    def answer(rows: pa.Table) -> tuple[pa.Table, Counts]:
        large_answers = model.answer(_items(rows))
        for row, one in zip(rows["id"], large_answers, strict=True):
            if fault := one.fault(len(names.answers)):
                raise DataError(f"the large model gave {fault}, to row {row.as_py()!r}", where="large")
        answers = Answers.of(large_answers, len(names.labels))
        failed = [large_answers[row] for row in np.flatnonzero(answers.failed_N).tolist()]
        reasons = Counter(FAILED + (one.error or "") for one in failed)
        count(reasons)
        counts: Counts = {
            name: sum(getattr(one.cost, name) for one in large_answers) for name in ("tokens", "currency")
        }
        replies = [one.reply for one in large_answers if one.off_label]
        counts |= {"rows": len(large_answers), "waiting": sum(one.outage for one in failed), "off_label": len(replies)}
        return answers.table(rows), counts | reasons | Counter(_OFF_LABEL + reply for reply in replies[:_SHOWN])

    return answer


def ask_shards(
    attempt: Attempt,
    large: LargeConfig,
    names: Names,
    sources: Mapping[str, Path],
    folder: Path,
    scratch: Path,
) -> dict[str, Any]:
    """Write a file with the answers to the rows of every shard to `folder`; returns the usage.

    A server is asked from this process, which has the key; waiting takes no cores. Each of its answers is committed to
    the response cache of the storage, outside any artefact, so every configuration reuses it. Rows that failed in an
    interrupted attempt are asked again. Raises DataError if no row was answered, or if more rows failed than the
    model's `max_failed` allows.
    """
    context = attempt.context
    ask = partial(map_shards, attempt, sources, folder=folder, scratch=scratch)
    if large.remote:
        model, sizes = server_model(context, large, names), sizes_of(sources, context.store.storage)
        paid = model if isinstance(model, PaidModel) else None
        limit = FailureLimit(paid.max_failed if paid else 1.0, sum(sizes.values()))
        answer = row_answerer(model, names, limit.count)
        items = partial(_items_of, context, sources, sizes)
        with paying(model, large, lambda server: price_of_all(server, items()), context.reporter):
            if paid:
                paid.ask_ahead(items())
            rows_per_unit = paid.rows_per_batch if paid else _ROWS_AT_ONCE
            counts = ask(build=lambda: answer, threads=UNITS_AT_ONCE, rows_per_unit=rows_per_unit)
    else:
        build = partial(_local_answerer, large, names, context.assets_path, context.cluster.device)
        counts = ask(build=build, rows_per_unit=_ROWS_AT_ONCE)
    usage = _usage(counts, large.remote)
    _say_faults(usage, counts, large, context.reporter)
    return usage


def _say_faults(usage: Mapping[str, Any], counts: Counts, large: LargeConfig, reporter: Reporter) -> None:
    """Report the rows without a usable answer. DataError if a model of this cluster failed on too many."""
    if reasons := Counter({name: int(count) for name, count in counts.items() if name.startswith(FAILED)}):
        if not large.remote:
            FailureLimit(1.0, usage["rows"]).count(reasons)
        reason = reasons.most_common(1)[0][0].removeprefix(FAILED)
        later = "; the next run asks again" if usage["waiting"] else ""
        reporter.say(
            f"[yellow]the large model failed on {usage['failed']} of {usage['rows']} rows{later}; most often:"
            f" {escape(reason)}[/yellow]"
        )
    if usage["off_label"]:
        share, example = usage["off_label"] / usage["rows"], escape(repr(usage["off_label_replies"][0]))
        reporter.say(
            f"[yellow]{usage['off_label']} of {usage['rows']} answers ({share:.1%}) are not on the label list and count"
            f" as wrong, such as {example}[/yellow]"
        )


def server_model(context: Context, large: LargeConfig, names: Names) -> LargeModel:
    """The model behind a server, with the paid answers of the storage; an outage is reported on the terminal."""
    responses = context.responses or ResponseStore.in_file(context.store.root / STORE_FILE)
    warn = lambda line: context.reporter.say(f"[yellow]{escape(line)}[/yellow]")  # noqa: E731
    return large.build(names.answers, context.assets_path, Resources(responses=responses, warn=warn))


def _local_answerer(large: LargeConfig, names: Names, assets_dir: Path, device: str) -> RowFunction:
    return row_answerer(large.build(names.answers, assets_dir, Resources(device)), names)


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
    return [Item(*item) for item in zip(rows["id"].to_pylist(), contents_of(rows), strict=True)]
