"""Windows of the log: the decisions of an application between two numbers, with all that is known of each by now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select
from sqlalchemy.engine import make_url

from kcm.errors import DataError, KcmError
from pipelines.serve.log.database import Database, LogUnavailableError
from pipelines.serve.log.records.drift import read_drift
from pipelines.serve.log.tables import (
    ALARMS,
    AUDITS,
    DECISIONS,
    ESCALATED,
    FEEDBACK,
    FORGOTTEN,
    INBOX,
    LOG_KEY,
    PAYLOADS,
)

MAX_ROWS, MAX_BYTES = 10_000, 64 * 2**20  # of a batch; a single input may be larger

# One row per decision, in the order of `number`. What has been forgotten has neither labels nor score nor payload.
WINDOW = pa.schema(
    [
        ("number", pa.int64()),
        ("request_id", pa.string()),
        ("item", pa.int32()),
        ("caller", pa.string()),  # a keyed hash, as `unit` is
        ("model_version", pa.string()),
        ("large_identity", pa.string()),
        ("unit", pa.string()),
        ("task", pa.string()),
        ("gate_score", pa.float64()),
        ("small_label", pa.string()),
        ("route", pa.string()),
        ("probability", pa.float64()),  # of the large model being asked: 1 where it was escalated
        ("audit_share", pa.float64()),
        ("state", pa.string()),  # of the large model's answer: null (not asked for), drawn, answered or lost
        ("large_label", pa.string()),
        ("large_probabilities", pa.list_(pa.float32())),  # in the order of the version's answers
        ("label", pa.string()),  # that a caller volunteered
        ("inbox_label", pa.string()),
        ("inbox_probability", pa.float64()),
        ("inbox_state", pa.string()),  # null (not drawn), drawn, labelled or skipped
        ("text", pa.string()),
        ("image", pa.binary()),
        ("features", pa.list_(pa.float32())),
        ("answered_at", pa.timestamp("us", tz="UTC")),
    ]
)
_OF_INBOX = ("inbox_label", "inbox_probability", "inbox_state")
_LISTS = ("large_probabilities", "features")


class LogReader:
    """Reads the log at `url` while it is written; raises KcmError where it cannot be read, DataError without one."""

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        require_log(url)
        self._url, self._database = url, Database(url, timeout_s)

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all connections."""
        self._database.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads."""
        try:
            with self._database.reading() as connection:
                yield connection
        except LogUnavailableError as error:
            raise KcmError(f"the log cannot be read: {error}", where=self._url) from error

    @property
    def unit_key(self) -> bytes:
        """The key of `kcm.tasks.units.unit_of` in this log."""
        with self.reading() as connection:
            return bytes.fromhex(connection.scalars(select(LOG_KEY.c.value)).one())

    def watermark(self, application: str) -> int:
        """The highest number below which no decision will ever be added; 0 without decisions.

        Rows from before applications were named count too, so that a window may begin after them.
        """
        with self.reading() as connection:
            return connection.scalar(select(func.max(DECISIONS.c.number)).where(_could_be(application))) or 0

    def window(self, application: str, after: int, upto: int, attempt: str | None = None) -> pa.Table:
        """The decisions with after < number <= upto, with the columns of WINDOW.

        The inbox is that of `attempt`, else what was drawn last. Raises DataError for decisions without probability or
        unit, which older versions wrote.
        """
        self._require_complete(application, after, upto)
        return pa.Table.from_batches(self.batches(application, after, upto, attempt), WINDOW)

    def batches(self, application: str, after: int, upto: int, attempt: str | None = None) -> Iterator[pa.RecordBatch]:
        """As `window`, piece by piece, for what does not fit in memory; nothing is refused."""
        while after < upto:
            with self.reading() as connection:
                end = _end_of_batch(connection, application, after, upto)
                if end is None:
                    return
                within = _within(application, after, end)
                rows = connection.execute(_rows(within)).all()
                inbox = connection.execute(_inbox(within, attempt)).all()
            yield _batch(rows, {(request_id, item): tuple(known) for request_id, item, *known in inbox})
            after = end

    def gaps(self, application: str, after: int, upto: int) -> int:
        """How many decisions are missing among those of the window: they were answered and never came into the log.

        Every replica counts what it answers. What a killed replica had answered in its last second follows its last
        row, and is not missed. Unused numbers mean nothing: those of PostgreSQL are used up by what was sent twice.
        """
        d = DECISIONS.c
        found = select(d.writer, func.max(d.sequence), func.count(d.sequence)).group_by(d.writer)
        missing = 0
        with self.reading() as connection:
            within = _within(application, after, upto), d.writer.is_not(None)
            for writer, last, number in connection.execute(found.where(*within)).all():
                earlier = select(d.sequence).where(_within(application, 0, after), d.writer == writer)
                before = connection.scalar(earlier.order_by(d.number.desc()).limit(1)) if last != number else 0
                missing += max(0, (last or 0) - (before or 0) - number)
        return missing

    def counts(self, application: str, after: int) -> tuple[int, int, int]:
        """How many decisions came after a number, and how many of them have a large answer, and a person's label."""
        d, a, e, f, i = (table.c for table in (DECISIONS, AUDITS, ESCALATED, FEEDBACK, INBOX))
        joined = DECISIONS
        for table in (AUDITS, ESCALATED, FEEDBACK):
            joined = joined.outerjoin(table, _same(DECISIONS, table))  # type: ignore[assignment]
        labelled = select(i.request_id).where(_same(DECISIONS, INBOX), i.label.is_not(None)).exists()
        answered, known = or_(a.large_label.is_not(None), e.route == "large"), or_(f.label.is_not(None), labelled)
        sums = [func.coalesce(func.sum(case((each, 1), else_=0)), 0) for each in (answered, known)]
        chosen = select(func.count(), *sums).select_from(joined)
        with self.reading() as connection:
            row = connection.execute(chosen.where(d.application == application, d.number > after)).one()
        return int(row[0]), int(row[1]), int(row[2])

    def shares(self, application: str, num_decisions: int) -> dict[str, float]:
        """What each version answered of the last so many decisions."""
        d = DECISIONS.c
        last = select(d.model_version).where(d.application == application).order_by(d.number.desc())
        recent = last.limit(num_decisions).subquery()
        with self.reading() as connection:
            found = connection.execute(select(recent.c.model_version, func.count()).group_by(recent.c.model_version))
            counts = {version: number for version, number in found.all() if version}
        total = sum(counts.values())
        return {version: number / total for version, number in counts.items()}

    def drift(self, application: str, version: str) -> dict[str, float]:
        """As `pipelines.serve.log.records.drift.read_drift`."""
        with self.reading() as connection:
            return read_drift(connection, application, version)

    def alarm(self, application: str, version: str) -> int | None:
        """The last decision that may have raised the alarm of a version; None without an alarm."""
        a, d = ALARMS.c, DECISIONS.c
        with self.reading() as connection:
            row = connection.execute(select(a.upto, a.raised_at).where(a.model_version == version)).first()
            if row is None or row.upto is not None:
                return row and int(row.upto)
            # One of an older version tells the time alone.
            seen = select(func.max(d.number)).where(d.application == application, d.answered_at <= row.raised_at)
            return connection.scalar(seen) or 0

    def forgotten(self, application: str) -> frozenset[str]:
        """The units of forgotten items, which must leave the memory of the next version."""
        units = select(FORGOTTEN.c.unit).where(FORGOTTEN.c.application == application, FORGOTTEN.c.unit.is_not(None))
        with self.reading() as connection:
            return frozenset(connection.scalars(units))

    def _require_complete(self, application: str, after: int, upto: int) -> None:
        d = DECISIONS.c
        lacking = or_(d.application.is_(None), d.unit.is_(None), d.probability.is_(None))
        where = (_could_be(application), d.number > after, d.number <= upto, lacking)
        with self.reading() as connection:
            number, last = connection.execute(select(func.count(), func.max(d.number)).where(*where)).one()
        if number:
            raise DataError(
                f"{number} decisions without probability or unit: a service of an older version wrote them",
                where=f"numbers {after + 1} to {upto} of {self._url}",
                hint=f"Stop services of older versions, and begin the window after number {last}",
            )


def require_log(url: str) -> None:
    """Raise DataError where the file of an SQLite log does not exist: who opens it would make it."""
    path = make_url(url).database or ""
    if url.startswith("sqlite") and not Path(path).exists():
        raise DataError("there is no log: nothing has been served yet", where=path, hint="Start `kcm serve` first")


def _could_be(application: str) -> ColumnElement[bool]:
    return or_(DECISIONS.c.application == application, DECISIONS.c.application.is_(None))


def _within(application: str, after: int, upto: int) -> ColumnElement[bool]:
    d = DECISIONS.c
    return and_(d.application == application, d.number > after, d.number <= upto)


def _end_of_batch(connection: Connection, application: str, after: int, upto: int) -> int | None:
    """The number of the last decision of the batch that begins after a number; None where no decision is left."""
    d, p = DECISIONS.c, PAYLOADS.c
    joined = DECISIONS.outerjoin(PAYLOADS, _same(DECISIONS, PAYLOADS))
    sizes = select(d.number, p.num_bytes).select_from(joined).where(_within(application, after, upto))
    end, num_bytes = None, 0
    for number, size in connection.execute(sizes.order_by(d.number).limit(MAX_ROWS)):
        num_bytes += size or 0
        if end is not None and num_bytes > MAX_BYTES:
            break
        end = number
    return end


def _rows(within: ColumnElement[bool]) -> Select[Any]:
    """The columns of WINDOW but for those of the inbox, in their order."""
    d, a, e, f, p = (table.c for table in (DECISIONS, AUDITS, ESCALATED, FEEDBACK, PAYLOADS))
    joined = DECISIONS
    for table in (AUDITS, ESCALATED, FEEDBACK, PAYLOADS):
        joined = joined.outerjoin(table, _same(DECISIONS, table))  # type: ignore[assignment]
    kept, by_large = d.route == "small", and_(d.route == "large", e.route == "large")
    state = case(
        (and_(kept, a.state == "answered", a.large_label.is_(None)), "lost"),  # forgotten
        (kept, a.state),
        (by_large, "answered"),
        else_="lost",
    )
    columns: dict[str, ColumnElement[Any]] = {
        "state": state,
        "large_label": case((kept, a.large_label), (by_large, e.label)),
        "large_probabilities": case((kept, a.large_probabilities), (by_large, e.large_probabilities)),
        "label": f.label,
        "task": func.coalesce(d.task, f.task),
        "text": func.coalesce(p.text, f.text, e.text),
        "image": p.image,
        "features": p.features,
    }
    names = [name for name in WINDOW.names if name not in _OF_INBOX]
    chosen = [columns[name].label(name) if name in columns else d[name] for name in names]
    return select(*chosen).select_from(joined).where(within).order_by(d.number)


def _inbox(within: ColumnElement[bool], attempt: str | None) -> Select[Any]:
    """What is known of drawn items, of the last attempt last."""
    i = INBOX.c
    chosen = select(i.request_id, i.item, i.label, i.probability, i.state)
    drawn = chosen.select_from(DECISIONS.join(INBOX, _same(DECISIONS, INBOX))).where(within)
    return (drawn if attempt is None else drawn.where(i.attempt == attempt)).order_by(i.drawn_at)


def _same(one: Any, other: Any) -> ColumnElement[bool]:
    return and_(one.c.request_id == other.c.request_id, one.c.item == other.c.item)


def _batch(rows: Sequence[Any], inbox: dict[tuple[str, int], tuple[Any, ...]]) -> pa.RecordBatch:
    columns = dict(zip((name for name in WINDOW.names if name not in _OF_INBOX), zip(*rows, strict=True), strict=True))
    items = zip(columns["request_id"], columns["item"], strict=True)
    known = [inbox.get(item, (None, None, None)) for item in items]
    columns |= dict(zip(_OF_INBOX, zip(*known, strict=True), strict=True))
    arrays = [
        _lists(columns[field.name]) if field.name in _LISTS else pa.array(columns[field.name], field.type)
        for field in WINDOW
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=WINDOW)


def _lists(blobs: Sequence[bytes | None]) -> pa.ListArray:
    """Lists of float32 from their bytes."""
    offsets = np.cumsum([0, *(len(blob or b"") // 4 for blob in blobs)], dtype=np.int32)
    values = np.frombuffer(b"".join(blob or b"" for blob in blobs), "<f4")
    missing = pa.array([blob is None for blob in blobs], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), mask=missing)
