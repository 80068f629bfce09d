"""Windows of the log: the decisions of an application between two numbers, with their outcomes so far."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select

from kcm.errors import DataError, KcmError
from kcm.local_files import replace_durably
from pipelines.serve.log.database import Database, log_exists, log_key, require_log
from pipelines.serve.log.entries import utc_now
from pipelines.serve.log.tables import (
    DECISIONS,
    FEEDBACK,
    NOVELTY,
    PAYLOADS,
    VERSIONS,
    counted,
    counted_labels,
    same_item,
)

TIMEOUT_S = 60.0
MAX_ROWS, MAX_BYTES = 10_000, 64 * 2**20  # bytes of a batch; a single input may be larger
NOVELTY_EXPIRES = timedelta(hours=1)  # a replica that has written nothing for this long is gone

# One row per decision, in the order of `number`. What has been forgotten has neither labels nor score nor payload.
WINDOW = pa.schema(
    [
        ("number", pa.int64()),
        ("request_id", pa.string()),
        ("item", pa.int32()),
        ("caller", pa.string()),  # a keyed hash, like `unit`
        ("model_version", pa.string()),
        ("large_identity", pa.string()),
        ("unit", pa.string()),
        ("task", pa.string()),
        ("gate_score", pa.float64()),
        ("small_label", pa.string()),
        ("route", pa.string()),
        ("probability", pa.float64()),  # probability that the large model was asked: 1 if the item was escalated
        ("audit_share", pa.float64()),
        ("state", pa.string()),  # state of the large model's answer: null (not asked), drawn, answered or lost
        ("large_label", pa.string()),
        ("large_probabilities", pa.list_(pa.float32())),  # in the order of the version's answers
        ("label", pa.string()),
        ("text", pa.string()),
        ("image", pa.binary()),
        ("features", pa.list_(pa.float32())),
        ("answered_at", pa.timestamp("us", tz="UTC")),
    ]
)


class LogReader(Database):
    """Reads the log at `url` while it is written; raises LogUnavailableError, or DataError if there is none."""

    def __init__(self, url: str, application: str) -> None:
        require_log(url)
        super().__init__(url, TIMEOUT_S, application)

    @property
    def unit_key(self) -> bytes:
        """The key of `kcm.tasks.units.unit_of` in this log."""
        with self.reading() as connection:
            return log_key(connection)

    def watermark(self) -> int:
        """The highest number below which no decision will ever be added; 0 without decisions."""
        return self.last_number(DECISIONS.c.application == self._application)

    def window(self, after: int, upto: int, max_share: float = 1.0) -> pa.Table:
        """The decisions with after < number <= upto, with the columns of WINDOW.

        The labels that one caller volunteered make up at most `max_share` of the labels, see `tables.counted_labels`.
        Raises DataError for decisions without a unit: they have no split.
        """
        window = pa.Table.from_batches(self.batches(after, upto), WINDOW)
        if number := window["unit"].null_count:
            where = f"numbers {after + 1} to {upto} of {self._url}"
            raise DataError(f"{number} decisions without a unit", where=where, hint="Begin the window after them")
        if max_share == 1:
            return window
        with self.reading() as connection:
            labels = counted_labels(connection, _within(self._application, after, upto), max_share).c
            counted_items = {tuple(row) for row in connection.execute(select(labels.request_id, labels.item))}
        items = zip(window["request_id"].to_pylist(), window["item"].to_pylist(), strict=True)
        label = pc.if_else(pa.array([item in counted_items for item in items], pa.bool_()), window["label"], None)
        return window.set_column(WINDOW.get_field_index("label"), "label", label)

    def uncounted(self, after: int, upto: int, max_share: float) -> int:
        """The number of labels in a window that exceed the share of their caller."""
        condition = _within(self._application, after, upto)
        with self.reading() as connection:
            all_labels, counting = (counted_labels(connection, condition, share) for share in (1.0, max_share))
            numbers = (select(func.count()).select_from(labels) for labels in (all_labels, counting))
            num_labels, num_counting = (connection.scalar(number) or 0 for number in numbers)
        return num_labels - num_counting

    def batches(self, after: int, upto: int) -> Iterator[pa.RecordBatch]:
        """`window` with all labels, in pieces, for windows that do not fit in memory."""
        while after < upto:
            with self.reading() as connection:
                end = _end_of_batch(connection, self._application, after, upto)
                if end is None:
                    return
                rows = connection.execute(_rows(_within(self._application, after, end))).all()
            yield _batch(rows)
            after = end

    def export(self, file: Path, after: int, upto: int) -> int:
        """Write a window to a Parquet file atomically; returns the number of its decisions.

        Writes it again if something was deleted from the log meanwhile. Raises KcmError if the file cannot be written.
        """
        num_forgotten, num_rows = self._num_forgotten(), 0
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=file.parent, prefix=".") as folder:
                draft = Path(folder) / file.name
                with pq.ParquetWriter(draft, WINDOW, compression="zstd") as writer:
                    for batch in self.batches(after, upto):
                        writer.write_batch(batch)
                        num_rows += batch.num_rows
                replace_durably(draft, file)
        except (OSError, pa.ArrowException) as error:
            raise KcmError(
                f"the log cannot be written out: {error}", where=str(file), hint="See whether there is room"
            ) from error
        return num_rows if self._num_forgotten() == num_forgotten else self.export(file, after, upto)

    def _num_forgotten(self) -> int:
        d = DECISIONS.c
        is_forgotten = (d.application == self._application) & d.forgotten_at.is_not(None)
        with self.reading() as connection:
            return connection.scalar(select(func.count()).where(is_forgotten)) or 0

    def gaps(self, after: int, upto: int) -> int:
        """The number of decisions missing from a window: answered, but never logged.

        Every replica counts its answers. The answers of a killed replica's last second follow its last row, so they are
        not counted as missing. Unused numbers are no gaps: PostgreSQL uses up a number when a row is sent twice.
        """
        d, missing = DECISIONS.c, 0
        by_writer = select(d.writer, func.max(d.sequence), func.count(d.sequence)).group_by(d.writer)
        by_writer = by_writer.where(_within(self._application, after, upto))
        with self.reading() as connection:
            for writer, last, number in connection.execute(by_writer).all():
                earlier = select(d.sequence).where(_within(self._application, 0, after), d.writer == writer)
                before = connection.scalar(earlier.order_by(d.number.desc()).limit(1)) if last != number else 0
                missing += max(0, (last or 0) - (before or 0) - number)
        return missing

    def stats(self) -> dict[str, Any]:
        """Decisions by version and route, audits by state, labels, and payloads with their bytes."""
        d, p, f = DECISIONS.c, PAYLOADS.c, FEEDBACK.c
        app = d.application == self._application
        with self.reading() as connection:
            versions: dict[str, dict[str, int]] = {}
            routes = select(d.model_version, d.route, func.count()).where(app).group_by(d.model_version, d.route)
            for version, route, number in connection.execute(routes.order_by(func.min(d.number))):
                versions.setdefault(version, {})[route] = number
            number, oldest, newest, num_forgotten = connection.execute(
                select(
                    func.count(), func.min(d.answered_at), func.max(d.answered_at), func.count(d.forgotten_at)
                ).where(app)
            ).one()
            payloads, num_bytes, oldest_payload = connection.execute(
                select(func.count(), func.coalesce(func.sum(p.num_bytes), 0), func.min(p.stored_at)).where(
                    p.application == self._application, p.num_bytes > 0
                )
            ).one()
            labels = counted(connection, f.new, FEEDBACK, app & f.label.is_not(None))
            return {
                "application": self._application,
                "decisions": number,
                "oldest": _when(oldest),
                "newest": _when(newest),
                "versions": versions,
                "audits": counted(connection, d.state, DECISIONS, app & d.state.is_not(None)),
                "labels": sum(labels.values()),
                "new_labels": counted(connection, f.label, FEEDBACK, app & f.new.is_(True)),
                "payloads": {"items": payloads, "bytes": int(num_bytes), "oldest": _when(oldest_payload)},
                "forgotten": num_forgotten,
            }

    def novelty(self, version: str) -> float:
        """The evidence of new classes in a version's traffic: the mean over its replicas, of which each sees a part.

        1 if no replica has written anything recently.
        """
        t = NOVELTY.c
        of_version = (t.application == self._application) & (t.model_version == version)
        recent = select(func.avg(t.e_value)).where(of_version, t.updated_at > utc_now() - NOVELTY_EXPIRES)
        with self.reading() as connection:
            return float(connection.scalar(recent) or 1.0)

    def alarm(self, version: str) -> int | None:
        """The last decision that may have refuted the certificate of a version; None if it was not refuted."""
        v = VERSIONS.c
        of_version = (v.application == self._application) & (v.model_version == version)
        with self.reading() as connection:
            return connection.scalar(select(v.refuted_upto).where(of_version))

    def forgotten(self) -> frozenset[str]:
        """The units of forgotten items, which the memory of the next version must not contain."""
        d = DECISIONS.c
        is_forgotten = (d.application == self._application) & d.forgotten_at.is_not(None) & d.unit.is_not(None)
        with self.reading() as connection:
            return frozenset(connection.scalars(select(d.unit).where(is_forgotten)))


def log_watermark(url: str, application: str) -> int:
    """The number of the last decision that a window of an application may end with; 0 if nothing is logged."""
    if not log_exists(url):
        return 0
    with LogReader(url, application) as log:
        return log.watermark()


def _within(application: str, after: int, upto: int) -> ColumnElement[bool]:
    d = DECISIONS.c
    return and_(d.application == application, d.number > after, d.number <= upto)


def _end_of_batch(connection: Connection, application: str, after: int, upto: int) -> int | None:
    """The number of the last decision of the batch that begins after a number; None if there is none."""
    d, p = DECISIONS.c, PAYLOADS.c
    source = DECISIONS.outerjoin(PAYLOADS, same_item(DECISIONS, PAYLOADS))
    sizes = select(d.number, p.num_bytes).select_from(source).where(_within(application, after, upto))
    end, num_bytes = None, 0
    for number, size in connection.execute(sizes.order_by(d.number).limit(MAX_ROWS)):
        num_bytes += size or 0
        if end is not None and num_bytes > MAX_BYTES:
            break
        end = number
    return end


def row_ids(window: pa.Table) -> pa.ChunkedArray:
    """The ids of decisions as rows of a task."""
    return pc.binary_join_element_wise(window["request_id"], window["item"].cast(pa.string()), "/")


def _rows(condition: ColumnElement[bool]) -> Select[Any]:
    """The columns of WINDOW in their order."""
    d, f, p = DECISIONS.c, FEEDBACK.c, PAYLOADS.c
    source = DECISIONS.outerjoin(FEEDBACK, same_item(DECISIONS, FEEDBACK))
    source = source.outerjoin(PAYLOADS, same_item(DECISIONS, PAYLOADS))
    small = (d.route == "small") & or_(d.state.is_(None), d.state != "answered")  # else it has been forgotten
    columns: dict[str, ColumnElement[Any]] = {
        "state": case((d.large_label.is_not(None), "answered"), (small, d.state), else_="lost"),
        "label": f.label,
        "task": func.coalesce(d.task, f.task),
        "text": func.coalesce(p.text, f.text),
        "image": p.image,
        "features": p.features,
    }
    output = [columns[name].label(name) if name in columns else d[name] for name in WINDOW.names]
    return select(*output).select_from(source).where(condition).order_by(d.number)


def _batch(rows: Sequence[Any]) -> pa.RecordBatch:
    arrays = []
    for field, values in zip(WINDOW, zip(*rows, strict=True), strict=True):
        if pa.types.is_list(field.type):
            values = tuple(None if value is None else np.frombuffer(value, "<f4") for value in values)
        arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=WINDOW)


def _when(moment: datetime | None) -> str | None:
    """A time in UTC, to the second."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z" if moment else None
