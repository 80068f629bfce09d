"""Text files as people have them: encoding and delimiter are detected from the first bytes.

Invalid bytes become `UNDECODABLE`, so that a reader can name the row and continue.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kcm.errors import ConfigError
from kcm.inputs.location import Location

UNDECODABLE = "\ufdd0"  # a noncharacter: no text contains it
UNDECODABLE_FAULT = "the row holds bytes that are not of the file's encoding"
_SAMPLE_BYTES = 4 << 20
_DELIMITERS = ",;\t|"
_MARKS = (  # UTF-32 before UTF-16: its little-endian mark begins with the other's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
codecs.register_error("kcm.undecodable", lambda error: (UNDECODABLE, getattr(error, "end")))  # noqa: B009


@dataclass(frozen=True)
class TextFormat:
    """The format of a text file. None: detected."""

    delimiter: str | None = None
    encoding: str | None = None

    def found_in(self, location: Location) -> TextFormat:
        """The same format with every None detected. Raises ConfigError for an unknown encoding."""
        with location.open() as stream:
            head = stream.read(_SAMPLE_BYTES)
        encoding = self.encoding or find_encoding(head)
        try:
            text = codecs.getincrementaldecoder(encoding)("kcm.undecodable").decode(head)
        except LookupError:
            raise ConfigError(
                f"unknown encoding {encoding!r}", where="source.encoding", hint="Use utf-8, cp1252, utf-16, …"
            ) from None
        is_tabs = location.suffix == ".tsv"
        return replace(
            self, encoding=encoding, delimiter=self.delimiter or find_delimiter(text, "\t" if is_tabs else ",")
        )


UNKNOWN_FORMAT = TextFormat()


def open_text(location: Location, encoding: str) -> io.TextIOWrapper:
    """The text of a file, decompressed; line ends unchanged."""
    return io.TextIOWrapper(location.open(), encoding=encoding, errors="kcm.undecodable", newline="")


def find_encoding(head: bytes) -> str:
    """The encoding of a file that begins with these bytes.

    A byte-order mark decides. Without one: UTF-16 if every other byte is zero; UTF-8 unless more special characters
    break it than fit it; otherwise Windows-1252, which contains Latin-1.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if (half := head[start:1000:2]) and half.count(0) > 0.7 * len(half):
            return encoding
    text = codecs.getincrementaldecoder("utf-8")("kcm.undecodable").decode(head)
    num_special = len(text) - len(text.encode("ascii", "ignore"))
    return "utf-8" if num_special >= 2 * text.count(UNDECODABLE) else "cp1252"


def find_delimiter(text: str, usual: str = ",") -> str:
    """The delimiter of a table: the most frequent mark in its header, outside quotes; `usual` if there is none.

    The header decides, not the rows: texts contain commas and semicolons.
    """
    header = re.sub(r'"[^"]*("|$)', "", text.lstrip().partition("\n")[0])
    marks: list[str] = list(dict.fromkeys([usual, *_DELIMITERS]))
    return max(marks, key=header.count)


def read_header(stream: io.TextIOWrapper, delimiter: str) -> tuple[str, ...]:
    """The column names, read from the stream; () for an empty file. Raises ValueError for a repeated name."""
    return column_names(next((row for row in csv.reader(stream, delimiter=delimiter) if any(map(str.strip, row))), []))


def column_names(header: Sequence[str]) -> tuple[str, ...]:
    """The cells of a header as names; an empty one gets its number. Raises ValueError for a repeated name."""
    names = [name.strip() or f"column_{number}" for number, name in enumerate(header, start=1)]
    if repeated := next((name for name, count in Counter(names).items() if count > 1), None):
        raise ValueError(f"the column {repeated!r} occurs twice in the header")
    return tuple(names)
