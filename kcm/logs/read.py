"""Reading a log as calls, row by row, so that memory does not grow with the log; and counting what cannot be read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from kcm.errors import DataError
from kcm.inputs.chunks import Chunk, read_chunks
from kcm.inputs.location import Location
from kcm.logs import langfuse, litellm, openai, otel
from kcm.logs.call import LoggedCall, Row
from kcm.logs.table import Columns

FORMATS = {  # tried in this order
    "OpenTelemetry spans": otel.calls,
    "LiteLLM spend log": litellm.calls,
    "Langfuse export": langfuse.calls,
    "OpenAI requests": openai.calls,
}
TABLE = "table"
UNKNOWN = "no known format"
_OBJECTS = (".json", ".jsonl", ".ndjson")
_LOOKED_AT = 50  # rows that tell the format of a log
_LINE = re.compile(r"^line \d+: ")


@dataclass
class Reading:
    """What a pass over the log has read: rows by format, and rows that cannot be read by reason."""

    formats: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def num_rows(self) -> int:
        """Rows of the log."""
        return self.formats.total() + self.faults.total()


@dataclass(frozen=True)
class Log:
    """A log of calls. `input` and `answer` are columns of a table; without them columns of usual names are used."""

    location: Location
    input: str | None = None
    answer: str | None = None

    def calls(self, reading: Reading) -> Iterator[LoggedCall]:
        """The calls in the order of the log; `reading` counts along.

        Raises DataError for a file that cannot be read at all. A truncated file ends at the cut.
        """
        is_begun = False
        try:
            for chunk in read_chunks(self.location, self._wanted):
                is_begun = True
                yield from self._chunk(chunk, reading)
        except DataError as error:
            if not is_begun:
                raise
            reading.faults[f"the rest of the file: {error.what}"] += 1

    def _wanted(self, name: str) -> bool:
        """Columns of a table; the objects of JSON come as they are."""
        return self.location.suffix not in _OBJECTS

    def _chunk(self, chunk: Chunk, reading: Reading) -> Iterator[LoggedCall]:
        rows = chunk.table.to_pylist() if chunk.objects is None else chunk.objects
        for position, row in enumerate(rows):
            fault = chunk.faults.get(position)
            if fault is None:
                yield from self.count(row, reading)
            else:
                reading.faults[_LINE.sub("", fault)] += 1

    def count(self, row: Row, reading: Reading) -> list[LoggedCall]:
        """The calls of one row, by the first format that fits, which `reading` counts."""
        columns = Columns.of(row.keys(), self.input, self.answer)
        readers = FORMATS if self.input is None else {}
        for name, reader in [*readers.items(), *([(TABLE, columns.calls)] if columns else [])]:
            try:
                calls = reader(row)
            except (AttributeError, TypeError, KeyError, IndexError):  # fields of other types than the format has
                continue
            if calls is not None:
                reading.formats[name] += 1
                return calls
        missing = next((name for name in (self.input, self.answer) if name and name not in row), None)
        reading.faults[f"without a column {missing!r}" if missing else UNKNOWN] += 1
        return []


def log_format(location: Location) -> str | None:
    """The format of a log of calls, by most of its first rows; None for a table.

    Raises DataError as `read_chunks` does.
    """
    chunk = next(read_chunks(location), None)
    if chunk is None:
        return None
    rows = chunk.table.slice(0, _LOOKED_AT).to_pylist() if chunk.objects is None else chunk.objects[:_LOOKED_AT]
    reading, log = Reading(), Log(location)
    for row in rows:
        log.count(row, reading)
    name, count = next(iter(reading.formats.most_common(1)), (TABLE, 0))
    return name if name != TABLE and count > len(rows) / 2 else None
