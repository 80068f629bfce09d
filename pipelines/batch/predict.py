"""Batch prediction: a file of any size through the cascade, by Ray Data, as a stream.

One task reads the file chunk by chunk, a pool of actors answers, and the driver writes; no process holds all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from numpy.typing import NDArray
from ray.data import DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from kcm.api.cascade import load_cascade
from kcm.bundle.answers import Answer, Failure, Input
from kcm.bundle.bundle import Bundle
from kcm.bundle.models import require_models
from kcm.bundle.runtime import fault_of
from kcm.cascade.policy import OnLargeFailure
from kcm.errors import DataError
from kcm.inputs.content import Content, PartError
from kcm.inputs.rowfile import CHUNK, RowFile, known_suffix, open_rows
from kcm.inputs.vectors import vector_in
from kcm.large import UpstreamConfig
from kcm.large.adapters.recorded import NO_ANSWER
from kcm.large.coverage import Coverage
from kcm.large.response_cache import ResponseStore
from pipelines.batch.pool import silence_ray_data
from pipelines.batch.rowwriter import writing
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected
from pipelines.progress import Reporter

CHUNK_SIZE = 256  # rows that are read together
BLOCK_BYTES = 64 * 1024  # of rows that an actor is given at a time: few enough that small files keep all actors busy

Missing = Literal["answer_small", "list"]
_ON_MISSING: dict[Missing, OnLargeFailure] = {"answer_small": "answer_small", "list": "error"}
_IDS_AT_ONCE = 4096

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


def predict(
    bundle_folder: Path,
    input_path: Path,
    output_path: Path,
    text_column: str,
    *,
    image_column: str = "image",
    image_root: Path | None = None,
    task_column: str | None = None,
    cluster: ClusterConfig,
    assets_dir: Path,
    reporter: Reporter,
    upstreams: Sequence[UpstreamConfig] = (),
    missing: Missing | None = None,
) -> dict[str, Any]:
    """Write the rows of `input_path`, in order and with all their columns, beside the cascade's answers.

    The suffix of either file gives its format: .csv, .jsonl or .parquet. The columns with texts and pictures are read
    as far as the bundle's models need them, those of vectors as the bundle's encoder names them, or `features`. Paths
    of pictures must lead below `image_root`, the folder of the input without one. A row that cannot be answered has an
    `error` instead of an answer. `id` is the input's own column, else the position of the row; another column of the
    answers that the input has too is prefixed by `kcm_`. Returns the number of rows by route.

    Answers of a paid large model stay in a hidden file beside the output until every row has its answer: a prediction
    that is started again pays for none of them twice. `upstreams` are the servers that the bundle's large model may be
    asked at.

    With recorded answers, `missing` says what becomes of escalated rows that have none: `answer_small` takes the small
    model's answer, `list` leaves them without one. Either way they are written to `<output>.missing` beside it, to be
    put to the model that gave the others. Without it, rows that have no recorded answer are refused, all of them
    counted, before anything is encoded.

    Raises DataError for an input that cannot be read, ArtefactError for a bundle that cannot be used and for an output
    that cannot be written, ConfigError for a server that is not among `upstreams`, before anything is computed.
    """
    known_suffix(output_path)
    if output_path.resolve() == input_path.resolve():
        raise DataError("the output would replace the input", where=str(input_path), mend="Name another output")
    bundle = Bundle.read(bundle_folder)
    source = open_rows(
        input_path.absolute(),
        text_column if "text" in bundle.reads else None,
        task_column,
        image_column if "image" in bundle.reads else None,
        image_root=image_root and image_root.absolute(),
    )
    require_models(bundle, assets_dir, upstreams)
    lacking = missing and not bundle.large.servable
    if missing is None:
        _require_answers(bundle, source)
    responses = output_path.absolute().with_name(f".{output_path.name}.paid")
    arguments = {
        "bundle_folder": bundle_folder.absolute(),
        "assets_dir": assets_dir.absolute(),
        "device": cluster.device,
        "upstreams": tuple(upstreams),
        "responses": ResponseStore.in_file(responses),
        "source": source,
        "on_missing": _ON_MISSING[missing] if missing and lacking else None,
    }
    names = added_columns(source)
    schema = pa.schema([(named, ANSWERS.field(name).type) for name, named in names.items()])
    routes: Counter[str] = Counter()
    left = output_path.absolute().with_suffix(f".missing{output_path.suffix}")
    left_schema, num_left = pa.schema([schema.field(names["id"])] if "id" in names else []), 0
    with (
        writing(output_path.absolute(), source, schema) as writer,
        writing(left, source, left_schema) if lacking else nullcontext() as left_writer,
        connected(cluster),
        reporter.bar("predict", "rows") as bar,
    ):
        bar.update(0, source.num_rows)
        for answered in _answered(source, arguments, cluster):
            answers = answered.select(list(names)).rename_columns(list(names.values()))
            writer.write(answered["payload"], answers)
            routes.update(route or "error" for route in answered["route"].to_pylist())
            if left_writer is not None:
                degraded, silent = pc.equal(answered["route"], "small_degraded"), pc.equal(answered["error"], NO_ANSWER)
                is_left = pc.fill_null(pc.or_kleene(degraded, silent), False)
                waiting = answers.filter(is_left)
                left_writer.write(answered["payload"].filter(is_left), waiting.select(left_schema.names))
                num_left += len(waiting)
            bar.update(routes.total(), source.num_rows)
    if not routes.keys() & {"error", "small_degraded"}:
        responses.unlink(missing_ok=True)  # the output has all answers now
    result = {"output": str(output_path), "rows": routes.total(), "routes": dict(routes)}
    return result | {"missing": num_left, "missing_path": str(left)} if lacking else result


def _require_answers(bundle: Bundle, source: RowFile) -> None:
    """Raise DataError for rows that recorded answers lack, with their number."""
    if not bundle.large.is_recorded:
        return
    answered = (table["id"] for table in bundle.large.answer_tables(bundle.answer_names))
    Coverage.of(answered, lambda: (chunk["id"] for chunk in source.chunks(_IDS_AT_ONCE))).require(
        bundle.large.location,
        "Give --missing list or --missing answer_small: what is known is written, and the escalated rows that are to"
        " be put to your own model",
    )


def added_columns(source: RowFile) -> dict[str, str]:
    """The columns of `ANSWERS` and their names in the output beside the columns of `source`."""
    taken = set(source.schema.names)
    names = {name: name for name in ANSWERS.names if name != "id" or source.id_column not in taken}
    for name in names:
        while names[name] in taken:
            names[name] = f"kcm_{names[name]}"
    return names


def _answered(source: RowFile, arguments: dict[str, Any], cluster: ClusterConfig) -> Iterator[pa.Table]:
    """Tables of payloads and answers, in the order of the rows."""
    silence_ray_data()
    context = DataContext.get_current().copy()
    context.execution_options.preserve_order = True
    context.target_max_block_size, context.target_min_block_size = BLOCK_BYTES, 1
    with DataContext.current(context):
        rows = ray.data.read_datasource(RowSource(source), num_cpus=0, override_num_blocks=1)
        answered = rows.map_batches(
            Score,
            fn_constructor_kwargs=arguments,
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=cluster.num_encoders),
            num_cpus=0 if cluster.use_gpu else 1,
            num_gpus=cluster.gpus_per_encoder if cluster.use_gpu else 0,
        )
        yield from answered.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


class RowSource(Datasource):
    """A file of rows as a Ray Data source: one task streams it, on the node of the driver."""

    def __init__(self, source: RowFile) -> None:
        super().__init__()
        self._source = source

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of the file, a rough guess that Ray Data plans with."""
        return self._source.path.stat().st_size

    @property
    def supports_distributed_reads(self) -> bool:
        """The file need not be seen by other nodes."""
        return False

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: DataContext | None = None
    ) -> list[ReadTask]:
        """One task: the rows of a stream have to be read in turn."""
        source = self._source
        metadata = BlockMetadata(
            num_rows=source.num_rows, size_bytes=self.estimate_inmemory_data_size(), exec_stats=None, input_files=None
        )
        return [ReadTask(lambda: source.chunks(CHUNK_SIZE), metadata, per_task_row_limit=per_task_row_limit)]


class Score:
    """Actor that adds the columns of `ANSWERS` to the payloads of a chunk."""

    def __init__(
        self,
        bundle_folder: Path,
        assets_dir: Path,
        device: str,
        upstreams: Sequence[UpstreamConfig] = (),
        responses: ResponseStore | None = None,
        source: RowFile | None = None,
        on_missing: OnLargeFailure | None = None,
    ) -> None:
        self._source = source
        self._cascade = load_cascade(bundle_folder, assets_dir, device, upstreams=upstreams, responses=responses)
        small_side = self._cascade.small_side
        self._bundle = small_side.bundle
        if on_missing is not None:
            small_side.policy = small_side.policy.model_copy(update={"on_large_failure": on_missing})

    def __call__(self, chunk: pa.Table) -> pa.Table:
        """Answer the rows that can be answered; the others say why not."""
        rows = chunk.select(list(CHUNK)).to_pylist()
        vectors = self._vectors(chunk["payload"])
        inputs = [
            Input(Content(row["text"] or "", row["image"] or b"", vector=vector), row["task"], row["id"])
            for row, (vector, _) in zip(rows, vectors, strict=True)
        ]
        faults = [
            row["fault"] or fault or fault_of(self._bundle, example)
            for row, (_, fault), example in zip(rows, vectors, inputs, strict=True)
        ]
        usable = [example for example, fault in zip(inputs, faults, strict=True) if fault is None]
        answers = iter(self._cascade.answer(usable))
        records = [
            {"id": row["id"]} | (_record(next(answers)) if fault is None else {"error": fault})
            for row, fault in zip(rows, faults, strict=True)
        ]
        return pa.Table.from_pylist(records, schema=ANSWERS).append_column("payload", chunk["payload"])

    def _vectors(self, payload: pa.ChunkedArray) -> list[tuple[NDArray[np.float32] | None, str]]:
        """The vector of each row, and what is wrong with it, where the bundle reads vectors."""
        if "vector" not in self._bundle.reads:
            return [(None, "")] * len(payload)
        assert self._source is not None  # given wherever files are read
        found: list[tuple[NDArray[np.float32] | None, str]] = []
        for row in self._source.records(payload):
            try:
                found.append((vector_in(row, self._bundle.encoder.vector_columns), ""))
            except PartError as error:
                found.append((None, str(error)))
        return found


def _record(answer: Answer | Failure) -> dict[str, Any]:
    if isinstance(answer, Failure):
        return {"error": answer.reason}
    return {name: getattr(answer, name) for name in ANSWERS.names if name not in ("id", "error")}
