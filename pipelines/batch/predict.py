"""Batch prediction: files of any size through a cascade; finished files and units of rows survive a kill.

Each file is cut into units of rows, see `pipelines.batch.shards`. When all units of a file exist, its output is
written: the original rows with their answers, in order.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.markup import escape

from kcm.api.cascade import load_cascade
from kcm.api.rows import ANSWERS, OUTSIDE, answer_table, free_names
from kcm.bundle.answers import Answer, Failure, Input, Unreadable
from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import NOT_CERTIFIED, load_large, require_models
from kcm.bundle.runtime import fault_of
from kcm.cascade.policy import OnLargeFailure
from kcm.encoders.precomputed import vector_columns
from kcm.errors import DataError
from kcm.inputs.chunks import read_chunks
from kcm.inputs.location import Location
from kcm.large import LargeModel, UpstreamConfig
from kcm.large.response_cache import ResponseStore
from kcm.parquet import read_table
from kcm.tasks.shards import GROUP_ROWS
from pipelines.batch.inputrows import ID, InputReader, InputRows, changed
from pipelines.batch.mapping import in_process
from pipelines.batch.outputs import FileRecord, PredictedFile, predicted_files, writing
from pipelines.batch.pricing import paying, price_of_escalated
from pipelines.batch.units import FAILED, Counts, RowFunction, Unit, UnitMapper, map_units, unit_rows, units_of
from pipelines.cluster.config import ClusterConfig
from pipelines.progress import Bar, Reporter
from pipelines.store.artefact import storage_errors
from pipelines.store.sequence import contents_of

PREDICTED = pa.schema([("id", pa.string()), *ANSWERS])
FILES_AT_ONCE = 8  # files that are scanned concurrently before anything is encoded
FEWEST_ROWS, MOST_ROWS, MOST_PICTURES = 32, GROUP_ROWS, 128  # of a unit

_FORMAT = 5  # of the output's format; another number invalidates finished files


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
    responses: ResponseStore | None = None,
    on_large_failure: OnLargeFailure | None = None,
    on_cluster: Callable[..., Generator[Counts]] | None = None,
) -> dict[str, Any]:
    """Write the rows of `input_path`, in order, with all their columns and the cascade's answers.

    The input is a file, a folder or a pattern, on this machine or in an object store. The suffix of a file gives its
    format: .csv, .jsonl or .parquet. The answers to one file are the file `output_path`. The answers to several files
    are a folder of files with the same names, in the format of `suffix` or by default of the input. All rows are
    answered by this process, or by `on_cluster` (`pipelines.batch.on_cluster.map_connected`): all nodes of `cluster`
    answer the files of an object store, this node answers the files of this machine.

    Texts and pictures are read if the bundle's models need them. Vectors are in the columns that the bundle's encoder
    names, or in `features`. Paths of pictures must lead below `image_root`, by default the folder of the input file. A
    row that cannot be answered has an `error` instead of an answer. `id` is the input's own column, or else the
    position of the row in its file; any other column of the answers whose name the input has already gets the prefix
    `kcm_`.

    Returns the number of rows by route, and `outside_promise`: the share of rows on which the large model failed. No
    certificate holds for an output with such rows. Their `error` gives the reason; the small model answers them unless
    `on_large_failure` is `error`. None leaves the choice to the bundle.

    If the command is repeated, a finished file is reused if its content, the bundle and the settings are the same. Rows
    on which the large model failed are retried. Files that another program or command has written are refused, unless
    `overwrite`.

    Answers of a paid large model are looked up and stored in `responses`, by default the user's own store, so none is
    paid twice. `upstreams` are the servers at which the bundle's large model may be asked.

    With recorded answers, an escalated row without an answer gets an error; ask the model that gave the recorded
    answers.

    Raises DataError for an input that cannot be read, ArtefactError for a bundle that cannot be used and for an output
    that cannot be written, ConfigError for a server that is not among `upstreams`, before anything is computed.
    """
    files = predicted_files(input_path, output_path, suffix)
    storage, hidden = files[0].storage, files[0].hidden
    bundle = Bundle.read(bundle_folder)
    columns: dict[str, Any] = {
        "text_column": text_column if "text" in bundle.reads else None,
        "image_column": image_column if "image" in bundle.reads else None,
        "task_column": task_column,
        "vectors": vector_columns(bundle.encoder) if "vector" in bundle.reads else None,
        "image_root": Location.of(image_root) if image_root else None,
    }
    command = _digest(_FORMAT, bundle.digest, columns, on_large_failure)
    opened, records = _looked_through(files, columns, command, overwrite=overwrite)
    require_models(bundle, assets_dir, upstreams)
    if not bundle.certificates:
        reporter.say(escape(NOT_CERTIFIED))
    if void := bundle.void_on(cluster.device, cluster.device):
        reporter.say(f"not certified on this runtime: {escape(void)}")
    if bundle.large.is_recorded:
        _require_ids(opened, len(files))
    if records:
        reporter.say(f"{len(records)} of {len(files)} files are answered already")
    if opened:
        with storage_errors(hidden):  # an unwritable folder is reported before anything is encoded
            hidden.mkdir(parents=True, exist_ok=True)
            storage.files.write(f"{storage.name(hidden)}/command", command.encode())
        responses = (responses or ResponseStore.of_user()) if bundle.large.remote else None
        folders, servers = (bundle_folder.absolute(), assets_dir.absolute()), tuple(upstreams)
        build = partial(row_predictor, *folders, cluster.device, servers, responses, on_large_failure)
        # The store of paid answers and the files of this machine are on this node.
        only_here = bundle.large.remote or not storage.is_remote or any(file.source.is_local for file in opened)
        threads = cluster.num_encoders if bundle.large.remote else 1  # one encodes while others wait for a server
        mapper = partial(in_process, threads=threads)
        if on_cluster:
            mapper = partial(on_cluster, cluster=cluster, only_here=only_here)
        with ExitStack() as stack:
            if bundle.large.remote:
                model = load_large(bundle, assets_dir, upstreams=upstreams, responses=responses)
                price = partial(price_of_escalated, bundle=bundle, files=list(opened.values()))
                stack.enter_context(paying(model, bundle.large, price, reporter))
                if not on_cluster:  # all threads ask the model that is closed when the block ends, also by Ctrl-C
                    build = partial(build, large_model=model)
            records += _answered(opened, command, build, mapper, stack.enter_context(reporter.bar("predict", "rows")))
    if not any(record.unfinished for record in records):  # the output has all answers now
        storage.drop([hidden / "units"])
    routes = sum((Counter(record.routes) for record in records), Counter[str]())
    num_outside = sum(record.unfinished for record in records)
    return {
        "output": str(output_path),
        "files": len(files),
        "answered_before": len(files) - len(opened),
        "rows": routes.total(),
        "routes": dict(routes),
        "void": _say_routes(routes, records, reporter) or void,
        "outside_promise": num_outside / max(routes.total(), 1),
    }


def _looked_through(
    files: Sequence[PredictedFile], columns: Mapping[str, Any], command: str, *, overwrite: bool
) -> tuple[dict[PredictedFile, InputRows], list[FileRecord]]:
    """The files to answer, scanned; and the records of the files that are answered already."""

    def look(file: PredictedFile) -> FileRecord | InputRows:
        return file.finished(command, overwrite=overwrite) or InputRows.opened(file.source, **columns)

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        states = dict(zip(files, pool.map(look, files), strict=True))
    opened = {file: state for file, state in states.items() if isinstance(state, InputRows)}
    return opened, [state for state in states.values() if not isinstance(state, InputRows)]


def _answered(
    opened: Mapping[PredictedFile, InputRows],
    command: str,
    build: Callable[[], RowFunction],
    mapper: UnitMapper,
    bar: Bar,
) -> Iterator[FileRecord]:
    """Answer the files one after the other, and write their outputs; the record of each."""
    first = next(iter(opened))
    storage, scratch = first.storage, first.hidden / "units"
    stamps = {file: file.source.stamp() for file in opened}  # before rows are read, so changes show
    units = _units(opened, stamps, scratch, command)
    counts_by_file = map_units(units, build, InputReader, mapper=mapper, scratch=scratch, storage=storage, bar=bar)
    for file, counts in counts_by_file:
        num_failed, faults = int(counts.pop(FAILED, 0)), Counter[str]()
        record = FileRecord(
            command=command,
            source=str(file.source),
            stamp=stamps[file],
            size=write_file(file, opened[file], units[file], faults),
            fault=faults.most_common(1)[0][0] if faults else None,
            routes={name: int(count) for name, count in counts.items()},
            unfinished=num_failed,
        )
        file.write(record)
        if not num_failed:
            storage.drop([unit.target.parent for unit in units[file][:1]])
        yield record


def _say_routes(routes: Counter[str], records: Sequence[FileRecord], reporter: Reporter) -> str | None:
    """Report the routes of the rows. If the large model failed on some, returns why the certificate is void."""
    by_route = ", ".join(f"{route} {routes[route]:,}" for route in sorted(routes))
    reporter.say(f"{routes.total():,} rows: {by_route or 'none'}")
    num_outside = sum(record.unfinished for record in records)
    if not num_outside:
        return None
    fault = next((f"; most often: {record.fault}" for record in records if record.fault), "")
    void = f"{num_outside:,} of {routes.total():,} rows have no answer of the large model that they needed{fault}"
    reporter.say(
        f"[yellow]warning: {escape(void)}. They are outside the promise, so that the certificate is void for this"
        " output; their `error` says why. Start again once the large model answers: only they are asked[/yellow]"
    )
    return void


def row_predictor(
    bundle_folder: Path,
    assets_dir: Path,
    device: str,
    upstreams: Sequence[UpstreamConfig] = (),
    responses: ResponseStore | None = None,
    on_large_failure: OnLargeFailure | None = None,
    large_model: LargeModel | None = None,
) -> RowFunction:
    """A function that gives rows the columns of `PREDICTED`, by the cascade of a bundle.

    A row without an answer has an error. The function counts rows by route, and the rows that another attempt may
    answer. A `large_model` replaces the one that the bundle would load.
    """
    cascade = load_cascade(bundle_folder, assets_dir, device, upstreams=upstreams, responses=responses)
    cascade.large_model = large_model or cascade.large_model
    bundle = cascade.small_side.bundle
    if chosen := "error" if bundle.large.is_recorded else on_large_failure:
        cascade.small_side.policy = cascade.small_side.policy.on_failure(chosen)

    def predict_rows(rows: pa.Table) -> tuple[pa.Table, Counts]:
        named = zip(contents_of(rows), rows["task"].to_pylist(), rows["id"].to_pylist(), strict=True)
        inputs = [Input(content, task or None, row_id) for content, task, row_id in named]
        known = zip(rows["fault"].to_pylist(), inputs, strict=True)
        faults = [fault or fault_of(bundle, example) for fault, example in known]
        usable = [example for example, fault in zip(inputs, faults, strict=True) if not fault]
        answers = iter(cascade.answer(usable))
        outcomes = [Unreadable(fault) if fault else next(answers) for fault in faults]
        counts = Counter("error" if isinstance(answer, Failure) else answer.route for answer in outcomes)
        if not bundle.large.is_recorded:
            counts.update(FAILED for answer in outcomes if _large_failed(answer))
        return answer_table(outcomes).add_column(0, PREDICTED.field("id"), rows["id"]), dict(counts)

    return predict_rows


def added_columns(source: pa.Schema) -> dict[str, str]:
    """The columns of `PREDICTED` and their names in the output, next to the columns of the input."""
    return free_names((name for name in PREDICTED.names if name != "id" or ID not in source.names), source.names)


def write_file(file: PredictedFile, rows: InputRows, units: Sequence[Unit], faults: Counter[str]) -> int:
    """Write the output of a file from its units; returns its size. `faults` counts why rows are outside the promise.

    DataError if the file has lost or gained rows since.
    """
    names, storage = added_columns(rows.schema), file.storage
    schema = pa.schema([(new_name, PREDICTED.field(name).type) for name, new_name in names.items()])
    answered = (read_table(storage.readable(unit.target)).replace_schema_metadata() for unit in units)
    waiting = PREDICTED.empty_table()
    with (
        file.drafted(units[0].target.parent) as draft,
        writing(draft, file.target.suffix, rows.schema, schema) as write,
    ):
        for chunk in read_chunks(file.source):
            while len(waiting) < chunk.num_rows:
                if (more := next(answered, None)) is None:
                    raise changed(file.source)
                waiting = pa.concat_tables([waiting, more])
                degraded = more.filter(pc.equal(more["route"], "small_degraded"))
                faults.update(error.removeprefix(OUTSIDE) for error in degraded["error"].to_pylist())
            answers = waiting.slice(0, chunk.num_rows).select(list(names))
            write(chunk, answers.rename_columns(list(names.values())))
            waiting = waiting.slice(chunk.num_rows)
        if len(waiting) or any(map(len, answered)):
            raise changed(file.source)
    return storage.files.size(storage.name(file.target))


def _units(
    opened: Mapping[PredictedFile, InputRows], stamps: Mapping[PredictedFile, str | None], scratch: Path, command: str
) -> dict[PredictedFile, list[Unit]]:
    """The units of every file, in a folder for the content of the file and the command."""
    size = unit_rows(sum(rows.num_rows for rows in opened.values()), FEWEST_ROWS)
    units = {}
    for file, rows in opened.items():
        folder = scratch / _digest(command, file.source, stamps[file] or uuid.uuid4().hex)[:16]
        most = MOST_PICTURES if rows.normaliser.layout.columns["image"] else MOST_ROWS
        units[file] = units_of(rows, rows.num_rows, min(size, most), folder / "rows")
    return units


def _digest(*settings: object) -> str:
    """Identifies a command: covers everything that decides the answers to the same rows."""
    return hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()


def _require_ids(opened: Mapping[PredictedFile, InputRows], num_files: int) -> None:
    """Raise DataError if rows of several files have no ids, which recorded answers need."""
    for file, rows in opened.items():
        if num_files > 1 and ID not in rows.schema.names:
            raise DataError(
                f"the rows have no column {ID!r}, by which recorded answers are found",
                where=str(file.source),
                hint="Add it: positions are no names where there are several files",
            )


def _large_failed(answer: Answer | Failure) -> bool:
    return not isinstance(answer, Unreadable) if isinstance(answer, Failure) else answer.degraded
