"""What `kcm init` says of a table: how it is written, what is odd in it, and what becomes of that."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd

from kcm.inputs.cells import written
from kcm.inputs.location import Location
from kcm.inputs.textfile import TextFormat
from kcm.tasks.readers.guess import GuessedColumns
from kcm.tasks.rows import BadRow

_SHOWN = 3
_WORDS = {str: "text", int: "numbers", float: "numbers", bool: "true or false", list: "lists", dict: "objects"}
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def format_line(location: Location, text_format: TextFormat) -> str:
    """How a text file is written."""
    encoding = str(text_format.encoding)
    parts = [f"encoding {encoding}"]
    if encoding == "utf-8-sig":
        parts = ["encoding utf-8 with a byte-order mark, which is skipped"]
    elif encoding == "cp1252":
        parts = ["encoding cp1252 (as Latin-1; if letters look wrong, correct tasks.source.encoding)"]
    if location.suffix in (".csv", ".tsv"):
        parts.insert(0, f"cells separated by {_DELIMITERS.get(str(text_format.delimiter), text_format.delimiter)}")
    return f"{location.name}: {', '.join(parts)}"


def type_counts(objects: Iterable[Mapping[str, object]]) -> dict[str, Counter[str]]:
    """How many values of each kind every column of JSON or Excel rows has."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in objects:
        for name, value in row.items():
            if value is not None:
                counts[name][_WORDS.get(type(value), "others")] += 1
    return counts


def findings(
    frame: pd.DataFrame, columns: GuessedColumns, types: Mapping[str, Counter[str]], *, is_sample: bool
) -> Iterator[str]:
    """Lines on mixed types, repeated ids and texts of several labels; of the first rows where `is_sample`."""
    among = f" among the first {len(frame):,} rows" if is_sample else ""
    used = {name: column for name, column in vars(columns).items() if column}
    for column in dict.fromkeys(used.values()):
        if len(kinds := types.get(column, Counter())) > 1:
            counts = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
            yield f"column {column!r} mixes types ({counts}){among}: all are read as text"
    if columns.id is None and "id" in frame and (repeated := int(frame["id"].duplicated().sum())):
        yield f"column 'id' repeats {count(repeated, 'id')}{among}: rows are named by their numbers instead"
    if columns.text and columns.label:
        texts = frame[~_is_empty(frame[columns.text]) & ~_is_empty(frame[columns.label])]
        labels = texts[columns.label].map(written).groupby(texts[columns.text].map(written)).nunique()
        if contradicted := int((labels > 1).sum()):
            yield f"warning: {count(contradicted, 'text')} with several labels{among}: correct them in the table"


def bad_row_lines(bad_rows: Sequence[BadRow], num_rows: int, limit: int | None) -> Iterator[str]:
    """Lines on the rows that are left out, by reason."""
    reasons: dict[str, list[int]] = defaultdict(list)
    for row in bad_rows:
        reasons[re.sub(r"^line \d+: ", "", row.reason)].append(row.row)
    for reason, rows in sorted(reasons.items(), key=lambda pair: -len(pair[1])):
        numbers = ", ".join(map(str, rows[:_SHOWN])) + (", …" if len(rows) > _SHOWN else "")
        yield f"left out: {count(len(rows), 'row')}, {reason} (row {numbers})"
    if limit is not None:
        yield f"tasks.max_bad_rows is set to {limit}: {len(bad_rows):,} of {num_rows:,} rows are bad"


def rare_lines(rare: Mapping[str, int], fewest: int, *, left_out: bool) -> Iterator[str]:
    """A line on labels with too few rows to be learned and tested."""
    if rare:
        names = ", ".join(f"{label!r} {count:,}" for label, count in list(rare.items())[:_SHOWN])
        more = ", …" if len(rare) > _SHOWN else ""
        action = "left out; label more rows, and add them to tasks.source.labels" if left_out else "kept"
        yield f"{count(len(rare), 'label')} with fewer than {fewest} rows ({names}{more}): {action}"


def count(number: int, noun: str) -> str:
    """A number with its noun, such as 2 rows."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _is_empty(cells: pd.Series) -> pd.Series:
    return cells.isna() | (cells.map(written).fillna("").str.strip() == "")
