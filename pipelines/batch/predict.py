"""Batch prediction: files of any size through the cascade, on Ray; finished ones survive a kill.

One task for each part reads its file, has the actors of a pool answer the rows, and writes them; the driver holds
counts. Reading and writing is not done by the actors themselves, since a single large file is to keep all of them busy
and a row of CSV or JSON lines can be found only by reading all before it. Rows that are on their way are bounded: a
task has a few small blocks for each actor, whatever the size of its file.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.markup import escape

from kcm.bundle.bundle import Bundle
from kcm.bundle.models import require_models
from kcm.cascade.policy import OnLargeFailure
from kcm.errors import DataError
from kcm.inputs.location import Location
from kcm.inputs.rowfile import RowFile, open_rows
from kcm.large import UpstreamConfig
from kcm.large.adapters.recorded import NO_ANSWER
from kcm.large.coverage import Coverage
from kcm.large.response_cache import ResponseStore
from pipelines.batch.drafts import make_folder
from pipelines.batch.parts import Part, Record, missing_of, parts_of
from pipelines.batch.pool import pool_of, result_of
from pipelines.batch.rowwriter import writing
from pipelines.batch.scoring import ANSWERS, UNFINISHED, Score, added_columns
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected
from pipelines.progress import Reporter
from pipelines.store.storage import cache_folder

CHUNK_SIZE = 256  # rows that are read together
BLOCK_BYTES = 64 * 1024  # of rows that an actor is given at a time: few enough that small files keep all actors busy
BLOCKS_PER_ACTOR = 2  # that a part has on their way: one is answered, the next is there already
FILES_AT_ONCE = 8  # that are looked at before anything is encoded

Missing = Literal["answer_small", "list"]
_ON_MISSING: dict[Missing, OnLargeFailure] = {"answer_small": "answer_small", "list": "error"}
_IDS_AT_ONCE = 4096
_FORMAT = 1  # of what is written; another one makes finished parts anew


@dataclass(frozen=True)
class Columns:
    """The columns of a file that are read, None for those that are not, and below which folder its pictures lie."""

    text: str | None
    task: str | None
    image: str | None
    image_root: Location | None

    def open(self, location: Location) -> RowFile:
        """Scan a file."""
        return open_rows(location, self.text, self.task, self.image, image_root=self.image_root)


@dataclass(frozen=True)
class Looked:
    """A part that was looked at: its record where it is finished, else its file, scanned."""

    part: Part
    record: Record | None
    rows: RowFile | None

    @property
    def names(self) -> Sequence[str]:
        """The columns of its file."""
        names: Sequence[str] = self.rows.schema.names if self.rows else self.record.columns if self.record else ()
        return names


@dataclass(frozen=True)
class Job:
    """A part that is to be made, of a scanned file."""

    part: Part
    rows: RowFile
    command: str
    lists_missing: bool


@dataclass(frozen=True)
class Step:
    """What a part reports while it is made: rows that were answered, and at the end its record."""

    num_rows: int
    record: Record | None = None


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
    missing: Missing | None = None,
    suffix: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the rows of `input_path`, in order and with all their columns, beside the cascade's answers.

    The input is a file, a folder or a pattern, here or in an object store. The suffix of a file gives its format: .csv,
    .jsonl or .parquet. The answers to one file are the file `output_path`; those to several are a folder of files under
    the same names, in the format of `suffix`, else in that of the input.

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

    With recorded answers, `missing` says what becomes of escalated rows that have none: `answer_small` takes the small
    model's answer, `list` leaves them without one. Either way they are written to `<output>.missing` beside it, to be
    put to the model that gave the others. Without it, rows that have no recorded answer are refused, all of them
    counted, before anything is encoded.

    Raises DataError for an input that cannot be read, ArtefactError for a bundle that cannot be used and for an output
    that cannot be written, ConfigError for a server that is not among `upstreams`, before anything is computed.
    """
    parts = parts_of(input_path, output_path, suffix)
    bundle = Bundle.read(bundle_folder)
    columns = Columns(
        text_column if "text" in bundle.reads else None,
        task_column,
        image_column if "image" in bundle.reads else None,
        Location.of(image_root) if image_root else None,
    )
    lists_missing = missing is not None and not bundle.large.servable
    command = _digest(_FORMAT, bundle.digest, columns, missing if lists_missing else None)
    looked = _look(parts, columns, command, overwrite)
    require_models(bundle, assets_dir, upstreams)
    void = bundle.void_on(cluster.device, cluster.device)
    if void:
        reporter.say(f"the certificate is void here: {escape(void)}")
    jobs = [Job(each.part, each.rows, command, lists_missing) for each in looked if each.rows]
    made = [each.record for each in looked if each.record]
    if bundle.large.is_recorded and jobs:
        _require_ids(parts, jobs)
        if missing is None:
            _require_answers(bundle, [job.rows for job in jobs])
    if made:
        reporter.say(f"{len(made)} of {len(parts)} files are answered already")
    responses = _paid(Location.of(output_path))
    arguments = {
        "bundle_folder": bundle_folder.absolute(),
        "assets_dir": assets_dir.absolute(),
        "device": cluster.device,
        "upstreams": tuple(upstreams),
        "responses": ResponseStore.in_file(responses),
        "on_missing": _ON_MISSING[missing] if missing and lists_missing else None,
    }
    if jobs:
        jobs[0].part.begin(command)  # where nothing can be written is known before anything is encoded
        made += _made(jobs, made, arguments, cluster, reporter)
    if not any(record.unfinished for record in made):
        responses.unlink(missing_ok=True)  # the output has all answers now
    routes = sum((Counter(record.routes) for record in made), Counter[str]())
    result = {
        "output": str(output_path),
        "files": len(parts),
        "answered_before": len(parts) - len(jobs),
        "rows": routes.total(),
        "routes": dict(routes),
        "void": void,
    }
    if not lists_missing:
        return result
    waiting = str(missing_of(Location.of(output_path)))
    return result | {"missing": sum(record.missing for record in made), "missing_path": waiting}


def _digest(*settings: object) -> str:
    """What tells one command from another: all that decides over the answers to the same rows."""
    return hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()


def _paid(out: Location) -> Path:
    """Where paid answers wait until the output has all of them."""
    if out.is_local:
        return Path(out.folder.path, f".{out.name}.paid")
    return cache_folder() / f"{_digest(out)}.paid"


def _look(parts: Sequence[Part], columns: Columns, command: str, overwrite: bool) -> list[Looked]:
    """Look at each part.

    Raises DataError for a file that cannot be read, or has other columns than the first, and ArtefactError for an
    output that something else has written.
    """

    def look(part: Part) -> Looked:
        record = part.finished(command, overwrite=overwrite)
        return Looked(part, record, None if record else columns.open(part.source))

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        looked = list(pool.map(look, parts))
    first = set(looked[0].names)
    for each in looked:
        if others := sorted(first.symmetric_difference(each.names)):
            owner = "this file has it" if others[0] in each.names else f"{parts[0].source} has it"
            raise DataError(
                f"not all files have a column {others[0]!r}: {owner}",
                where=str(each.part.source),
                hint="Answer files of different columns apart",
            )
    return looked


def _require_ids(parts: Sequence[Part], jobs: Sequence[Job]) -> None:
    """Raise DataError where rows of several files have no ids, by which recorded answers are found."""
    for job in jobs:
        if len(parts) > 1 and job.rows.id_column not in job.rows.schema.names:
            raise DataError(
                f"the rows have no column {job.rows.id_column!r}, by which recorded answers are found",
                where=str(job.part.source),
                hint="Add it: positions are no names where there are several files",
            )


def _require_answers(bundle: Bundle, files: Sequence[RowFile]) -> None:
    """Raise DataError for rows that recorded answers lack, with their number."""
    answered = (table["id"] for table in bundle.large.answer_tables(bundle.answer_names))
    Coverage.of(answered, lambda: (chunk["id"] for file in files for chunk in file.chunks(_IDS_AT_ONCE))).require(
        bundle.large.location,
        "Give --missing list or --missing answer_small: what is known is written, and the escalated rows that are to"
        " be put to your own model",
    )


def _made(
    jobs: Sequence[Job],
    before: Sequence[Record],
    arguments: dict[str, Any],
    cluster: ClusterConfig,
    reporter: Reporter,
) -> list[Record]:
    """Make parts on the cluster, as many at a time as there are actors; the records of all of them."""
    done = sum(record.rows for record in before)
    total = done + sum(job.rows.num_rows for job in jobs)
    # A picture is a block of its own, or nearly so.
    num_blocks = sum(-(-job.rows.num_rows // (1 if job.rows.image_column else CHUNK_SIZE)) for job in jobs)
    waiting, made = deque(jobs), list[Record]()
    running = set[Any]()  # streams of steps
    with connected(cluster), reporter.bar("predict", "rows") as bar:
        bar.update(done, total)
        actors = pool_of(Score, cluster, max(1, min(cluster.num_encoders, num_blocks)), **arguments)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        make = ray.remote(make_part)
        try:
            while waiting or running:
                while waiting and len(running) < len(actors):
                    job = waiting.popleft()
                    place = here if job.part.is_local else "SPREAD"  # other nodes need not see the files of this one
                    options = make.options(
                        num_cpus=0, num_returns="streaming", max_retries=3, scheduling_strategy=place
                    )
                    running.add(options.remote(job, actors))
                ready: Any = ray.wait(list(running), num_returns=1)[0][0]
                try:
                    step: Step = result_of(next(ready))
                except StopIteration:
                    running.discard(ready)
                    continue
                done += step.num_rows
                bar.update(done, total)
                if step.record:
                    made.append(step.record)
        finally:
            for each in running:
                ray.cancel(each)
            for actor in actors:
                ray.kill(actor)
    return made


def make_part(job: Job, actors: Sequence[Any]) -> Iterator[Step]:
    """Write one part, and tell of each step."""
    part, rows = job.part, job.rows
    part.begin(job.command)
    stamp = part.source.stamp()  # before the first row is read: what changes meanwhile is made again
    names = added_columns(rows)
    schema = pa.schema([(named, ANSWERS.field(name).type) for name, named in names.items()])
    missing_schema = pa.schema([schema.field(names["id"])] if "id" in names else [])
    routes: Counter[str] = Counter()
    num_missing = num_unfinished = 0
    if job.lists_missing:
        make_folder(part.missing.folder)
    with (
        writing(part.target, rows, schema) as writer,
        writing(part.missing, rows, missing_schema) if job.lists_missing else nullcontext() as missing_writer,
    ):
        for payload, answered in _answered(rows, actors):
            answers = answered.select(list(names)).rename_columns(list(names.values()))
            writer.write(payload, answers)
            routes.update(route or "error" for route in answered["route"].to_pylist())
            num_unfinished += pc.sum(answered[UNFINISHED]).as_py() or 0
            if missing_writer is not None:
                degraded, silent = pc.equal(answered["route"], "small_degraded"), pc.equal(answered["error"], NO_ANSWER)
                is_missing = pc.fill_null(pc.or_kleene(degraded, silent), False)
                waiting = answers.filter(is_missing)
                missing_writer.write(payload.filter(is_missing), waiting.select(missing_schema.names))
                num_missing += len(waiting)
            yield Step(len(answers))
    record = Record(
        command=job.command,
        source=str(part.source),
        stamp=stamp,
        size=part.target.size(),
        columns=tuple(rows.schema.names),
        rows=routes.total(),
        routes=dict(routes),
        missing=num_missing,
        unfinished=num_unfinished,
    )
    part.write(record)
    yield Step(0, record)


def _answered(rows: RowFile, actors: Sequence[Any]) -> Iterator[tuple[pa.ChunkedArray, pa.Table]]:
    """Payloads and answers of all rows in their order; the next block goes to the actor that has least to do."""
    source = ray.put(rows)
    load = dict.fromkeys(actors, 0)
    running: dict[Any, Any] = {}  # the actor that answers, by its answer to be
    waiting: deque[tuple[pa.ChunkedArray, Any]] = deque()  # blocks that are not written yet, in order
    for block in _blocks(rows.chunks(CHUNK_SIZE)):
        if len(waiting) >= BLOCKS_PER_ACTOR * len(actors):
            payload, answer = waiting.popleft()
            yield payload, result_of(answer)
        for answer in ray.wait(list(running), num_returns=len(running), timeout=0)[0] if running else ():
            load[running.pop(answer)] -= 1
        actor = min(actors, key=load.__getitem__)
        load[actor] += 1
        answer = actor.answer.remote(source, block)
        running[answer] = actor
        waiting.append((block["payload"], answer))
    for payload, answer in waiting:
        yield payload, result_of(answer)


def _blocks(chunks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Chunks, cut into blocks of about `BLOCK_BYTES`."""
    for chunk in chunks:
        size = max(1, BLOCK_BYTES * len(chunk) // max(chunk.nbytes, 1))
        for start in range(0, len(chunk), size):
            yield chunk.slice(start, size)
