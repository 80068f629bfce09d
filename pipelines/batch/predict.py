"""Batch prediction: files of any size through a cascade, on Ray; finished files and blocks of rows survive a kill.

Each file is cut into blocks of rows. The actor that answers a block reads it and writes it, with the answers, to a
hidden folder beside the output. When all blocks of a file are there, its output is written from them, in order.

    answers/2024/.a.csv.blocks/DIGEST/000000001024-000000002048.parquet
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs
from rich.markup import escape

from kcm.api.cascade import load_cascade
from kcm.api.rows import free_names
from kcm.bundle.answers import Answer, Failure, Input, Unreadable
from kcm.bundle.bundle import Bundle
from kcm.bundle.models import require_models
from kcm.bundle.runtime import fault_of
from kcm.errors import DataError
from kcm.inputs.content import Content, PartError
from kcm.inputs.location import Location, cache_folder
from kcm.inputs.rowfile import RowFile, open_rows
from kcm.inputs.vectors import vector_in
from kcm.large import UpstreamConfig
from kcm.large.response_cache import ResponseStore
from kcm.parquet import read_table, write_table
from kcm.tasks.shards import GROUP_ROWS
from pipelines.batch.mapping import map_with_actors
from pipelines.batch.outputs import FileRecord, PredictedFile, predicted_files
from pipelines.batch.rowwriter import drafted, make_folder, writing
from pipelines.batch.shards import unit_rows
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected
from pipelines.progress import Bar, Reporter

ANSWERS = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("judge_confidence", pa.float64()),
        ("answer_probability", pa.float64()),
        ("gate_score", pa.float64()),
        ("route", pa.string()),
        ("cost_s", pa.float64()),
        ("error", pa.string()),
    ]
)
UNFINISHED = "unfinished"  # the column that says which rows another attempt may answer
FILES_AT_ONCE = 8  # that are looked at before anything is encoded
FEWEST_ROWS, MOST_ROWS, MOST_PICTURES = 32, GROUP_ROWS, 128  # of a block

_FORMAT = 3  # of what is written; another number makes finished files anew


@dataclass(frozen=True)
class Block:
    """Rows `start` to `stop` of a file, and where they go with their answers."""

    rows: RowFile
    start: int
    stop: int
    target: Location


def predict(
    bundle_folder: Path,
    input_path: str | Path,
    output_path: str | Path,
    text_column: str,
    *,
    image_column: str = "image",
    image_root: str | Path | None = None,
    task_column: str | None = None,
    cluster: ClusterConfig,
    assets_dir: Path,
    reporter: Reporter,
    upstreams: Sequence[UpstreamConfig] = (),
    suffix: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the rows of `input_path`, in order and with all their columns, beside the cascade's answers.

    The input is a file, a folder or a pattern, here or in an object store. The suffix of a file gives its format: .csv,
    .jsonl or .parquet. The answers to one file are the file `output_path`; those to several are a folder of files under
    the same names, in the format of `suffix`, else in that of the input. Files of this machine are answered on this
    machine, files of an object store by all nodes.

    The columns with texts and pictures are read as far as the bundle's models need them, those of vectors as the
    bundle's encoder names them, or `features`. Paths of pictures must lead below `image_root`, the folder of the input
    file without one. A row that cannot be answered has an `error` instead of an answer. `id` is the input's own column,
    else the position of the row in its file; another column of the answers that the input has too is prefixed by
    `kcm_`. Returns the number of rows by route.

    A finished file is not made again when the command is given again: of the same content, by the same bundle and with
    the same settings. One with rows that the large model failed on is not finished. Files that something else has
    written are refused, unless `overwrite`.

    Answers of a paid large model stay in a hidden file beside the output, of one in an object store in this machine's
    cache, until every row has its answer: a prediction that is started again pays for none of them twice. `upstreams`
    are the servers that the bundle's large model may be asked at.

    With recorded answers, escalated rows that have none get an error that says so: they are to be put to the model that
    gave the others.

    Raises DataError for an input that cannot be read, ArtefactError for a bundle that cannot be used and for an output
    that cannot be written, ConfigError for a server that is not among `upstreams`, before anything is computed.
    """
    files = predicted_files(input_path, output_path, suffix)
    bundle = Bundle.read(bundle_folder)
    columns: dict[str, Any] = {
        "text_column": text_column if "text" in bundle.reads else None,
        "task_column": task_column,
        "image_column": image_column if "image" in bundle.reads else None,
        "image_root": Location.of(image_root) if image_root else None,
    }
    command = _digest(_FORMAT, bundle.digest, columns)
    scanned, records = _look(files, partial(open_rows, **columns), command, overwrite)
    require_models(bundle, assets_dir, upstreams)
    if void := bundle.void_on(cluster.device, cluster.device):
        reporter.say(f"the certificate is void here: {escape(void)}")
    if bundle.large.is_recorded and scanned:
        _require_ids(scanned, len(files))
    if records:
        reporter.say(f"{len(records)} of {len(files)} files are answered already")
    responses = _paid(Location.of(output_path))
    build = partial(
        CascadeAnswerer,
        bundle_folder.absolute(),
        assets_dir.absolute(),
        cluster.device,
        upstreams=tuple(upstreams),
        responses=ResponseStore.in_file(responses),
    )
    if scanned:
        next(iter(scanned)).begin(command)  # where nothing can be written is known before anything is encoded
        only_here = bundle.large.remote or any(file.is_local for file in scanned)  # paid answers are in a file here
        with connected(cluster), reporter.bar("predict", "rows") as bar:
            answered = partial(map_with_actors, build, cluster=cluster, only_here=only_here)
            for record in _made(scanned, command, answered, records, bar):
                records.append(record)
    if not any(record.unfinished for record in records):
        responses.unlink(missing_ok=True)  # the output has all answers now
    routes = sum((Counter(record.routes) for record in records), Counter[str]())
    by_route = ", ".join(f"{route} {routes[route]:,}" for route in sorted(routes))
    reporter.say(f"{routes.total():,} rows: {by_route or 'none'}")
    return {
        "output": str(output_path),
        "files": len(files),
        "answered_before": len(files) - len(scanned),
        "rows": routes.total(),
        "routes": dict(routes),
        "void": void,
    }


def added_columns(source: RowFile) -> dict[str, str]:
    """The columns of `ANSWERS` and their names in the output beside the columns of `source`."""
    taken = source.schema.names
    return free_names((name for name in ANSWERS.names if name != "id" or source.id_column not in taken), taken)


class CascadeAnswerer:
    """Answers blocks of rows by the cascade of a bundle."""

    def __init__(
        self,
        bundle_folder: Path,
        assets_dir: Path,
        device: str,
        *,
        upstreams: Sequence[UpstreamConfig] = (),
        responses: ResponseStore | None = None,
    ) -> None:
        self._cascade = load_cascade(bundle_folder, assets_dir, device, upstreams=upstreams, responses=responses)
        self._read = BlockReader()
        small_side = self._cascade.small_side
        if not small_side.bundle.large.servable:
            small_side.policy = small_side.policy.model_copy(update={"on_large_failure": "error"})

    def __call__(self, block: Block) -> int:
        """Write a block with its answers; its number of rows."""
        rows = self._read(block)
        answered = self.answer(block.rows, rows).append_column("payload", rows["payload"])
        with drafted(block.target) as draft:
            write_table(answered, draft)
        return len(answered)

    def answer(self, source: RowFile, rows: pa.Table) -> pa.Table:
        """The columns of `ANSWERS`, and `UNFINISHED`, for rows of `source`; those that cannot be answered say why."""
        bundle = self._cascade.small_side.bundle
        contents = self._contents(source, rows)
        inputs = [
            Input(content, row["task"], row["id"])
            for (content, _), row in zip(contents, rows.select(["task", "id"]).to_pylist(), strict=True)
        ]
        faults = [
            known or fault or fault_of(bundle, example)
            for known, (_, fault), example in zip(rows["fault"].to_pylist(), contents, inputs, strict=True)
        ]
        answers = iter(
            self._cascade.answer([item for item, fault in zip(inputs, faults, strict=True) if fault is None])
        )
        given = [next(answers) if fault is None else Unreadable(fault) for fault in faults]
        records = [{"id": item.id} | _record(answer) for item, answer in zip(inputs, given, strict=True)]
        may_pass = [bundle.large.servable and _large_failed(answer) for answer in given]
        return pa.Table.from_pylist(records, schema=ANSWERS).append_column(UNFINISHED, [may_pass])

    def _contents(self, source: RowFile, rows: pa.Table) -> list[tuple[Content, str]]:
        """What each row shows, and what is wrong with it."""
        bundle, found = self._cascade.small_side.bundle, []
        reads_vectors = "vector" in bundle.reads
        records = source.records(rows["payload"]) if reads_vectors else [{}] * len(rows)
        shown = zip(rows["text"].to_pylist(), source.pictures(rows["payload"]), records, strict=True)
        for text, (image, fault), record in shown:
            vector = None
            try:
                vector = vector_in(record, bundle.encoder.vector_columns) if reads_vectors else None
            except PartError as error:
                fault = str(error)
            found.append((Content(text or "", image or b"", vector=vector), fault))
        return found


class BlockReader:
    """Reads the rows of blocks, from where the last block ended: a file is read once if blocks come in order."""

    def __init__(self) -> None:
        self._location: Location | None = None
        self._first = 0

    def __call__(self, block: Block) -> pa.Table:
        """The rows of a block."""
        if block.rows.location != self._location or block.start < self._first:
            self._location, self._first = block.rows.location, 0
            self._chunks = block.rows.chunks(GROUP_ROWS)
            self._chunk = next(self._chunks)
        tables = []
        while True:
            end = self._first + len(self._chunk)
            if block.start < end:
                start = max(block.start - self._first, 0)
                tables.append(self._chunk.slice(start, min(block.stop, end) - self._first - start))
            if end >= block.stop:
                return pa.concat_tables(tables)
            self._first, self._chunk = end, next(self._chunks)


def _digest(*settings: object) -> str:
    """What tells one command from another: all that decides over the answers to the same rows."""
    return hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()


def _paid(out: Location) -> Path:
    """Where paid answers wait until the output has all of them."""
    if out.is_local:
        return Path(out.folder.path, f".{out.name}.paid")
    return cache_folder() / "storage" / f"{_digest(out)}.paid"


def _look(
    files: Sequence[PredictedFile], scan: Callable[[Location], RowFile], command: str, overwrite: bool
) -> tuple[dict[PredictedFile, RowFile], list[FileRecord]]:
    """The files that are to be answered, scanned, and the records of those that are finished.

    Raises DataError for a file that cannot be read, and ArtefactError for an output that something else has written.
    """

    def look(file: PredictedFile) -> tuple[FileRecord | None, RowFile | None]:
        record = file.finished(command, overwrite=overwrite)
        return record, None if record else scan(file.source)

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        looked = dict(zip(files, pool.map(look, files), strict=True))
    scanned = {file: rows for file, (_, rows) in looked.items() if rows}
    return scanned, [record for record, _ in looked.values() if record]


def _require_ids(scanned: Mapping[PredictedFile, RowFile], num_files: int) -> None:
    """Raise DataError where rows of several files have no ids, by which recorded answers are found."""
    for file, rows in scanned.items():
        if num_files > 1 and rows.id_column not in rows.schema.names:
            raise DataError(
                f"the rows have no column {rows.id_column!r}, by which recorded answers are found",
                where=str(file.source),
                hint="Add it: positions are no names where there are several files",
            )


def _made(
    scanned: Mapping[PredictedFile, RowFile],
    command: str,
    answered: Callable[[Sequence[Block]], Iterator[int]],
    before: Sequence[FileRecord],
    bar: Bar,
) -> Iterator[FileRecord]:
    """Answer and write files; the record of each."""
    done, num_rows = (
        sum(sum(record.routes.values()) for record in before),
        sum(rows.num_rows for rows in scanned.values()),
    )
    total, size = done + num_rows, unit_rows(num_rows, FEWEST_ROWS)
    stamps = {file: file.source.stamp() for file in scanned}  # before rows are read: what changes is made again
    blocks, there = dict[PredictedFile, list[Block]](), set[str]()
    for file, rows in scanned.items():
        folder = file.blocks / _digest(command, file.source, stamps[file] or uuid.uuid4().hex)[:16]
        make_folder(folder)
        blocks[file] = list(_blocks(rows, min(size, MOST_PICTURES if rows.image_column else MOST_ROWS), folder))
        if folder.kind() == fs.FileType.Directory:  # of a bucket, once it holds a file
            there |= {str(found.location) for found in folder.files(recursive=False)}
    everything = [block for group in blocks.values() for block in group]
    counts = answered([block for block in everything if str(block.target) not in there])
    for file, group in blocks.items():
        for block in group:
            done += block.stop - block.start if str(block.target) in there else next(counts)
            bar.update(done, total)
        yield write_file(file, scanned[file], group, command, stamps[file])


def _blocks(rows: RowFile, size: int, folder: Location) -> Iterator[Block]:
    for start in range(0, rows.num_rows, size):
        stop = min(start + size, rows.num_rows)
        yield Block(rows, start, stop, folder / f"{start:012}-{stop:012}.parquet")


def write_file(
    file: PredictedFile, rows: RowFile, blocks: Sequence[Block], command: str, stamp: str | None
) -> FileRecord:
    """Write the output of a file from its blocks, which are gone then; its record."""
    file.begin(command)
    names = added_columns(rows)
    schema = pa.schema([(new_name, ANSWERS.field(name).type) for name, new_name in names.items()])
    routes: Counter[str] = Counter()
    num_unfinished = 0
    with writing(file.target, rows, schema) as write:
        for block in blocks:
            answered = _read_block(block)
            answers = answered.select(list(names)).rename_columns(list(names.values()))
            write(answered["payload"], answers)
            routes.update(route or "error" for route in answered["route"].to_pylist())
            num_unfinished += pc.sum(answered[UNFINISHED]).as_py() or 0
    record = FileRecord(
        command=command,
        source=str(file.source),
        stamp=stamp,
        size=file.target.size(),
        routes=dict(routes),
        unfinished=num_unfinished,
    )
    file.write(record)
    file.drop_blocks()
    return record


def _read_block(block: Block) -> pa.Table:
    with block.target.open_at() as stream:
        return read_table(stream)


def _large_failed(answer: Answer | Failure) -> bool:
    return not isinstance(answer, Unreadable) if isinstance(answer, Failure) else answer.degraded


def _record(answer: Answer | Failure) -> dict[str, Any]:
    if isinstance(answer, Failure):
        return {"error": answer.reason}
    return {name: getattr(answer, name) for name in ANSWERS.names if name not in ("id", "error")}
