"""Cells as text (the same value gives the same text in every file format), and missing cells."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

MISSING = frozenset(
    {"NULL", "NaN", "None", "n/a", "nan", "null", "NA", "N/A", "<NA>", "#NA", "#N/A", "#N/A N/A", "-nan", "-NaN"}
    | {"1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"}
)
"""Texts that mark a missing value, as in pandas (`na_values` of `read_csv`)."""
_USERS, _ASSISTANTS = ("user", "human"), ("assistant", "gpt", "model")


def written(value: object) -> str | None:
    """A value as text: whole numbers as digits, nested values as JSON, NaN as null."""
    if value is None or value != value:  # only NaN differs from itself
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e16:
        return str(int(value))
    text = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else str(value)
    # Lone surrogates, valid in JSON but not in UTF-8, are escaped.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def as_text(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as text; each cell by `written`."""
    cells = whole(column) if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_nested(cells.type):
        return pa.array(map(written, cells.to_pylist()), pa.string())
    if is_text(cells.type) or pa.types.is_integer(cells.type) or pa.types.is_null(cells.type):
        return cells.cast(pa.string())
    codes = cells if pa.types.is_dictionary(cells.type) else cells.dictionary_encode()
    return pa.array(map(written, codes.dictionary.to_pylist()), pa.string()).take(codes.indices)


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; `combine_chunks` may leave several of a type with small offsets."""
    cells = column.combine_chunks()
    return pa.concat_arrays(cells.chunks) if isinstance(cells, pa.ChunkedArray) else cells


def without_missing(cells: pa.Array, known: Collection[str] = ()) -> pa.Array:
    """Text cells, with null for white space and for the words in `MISSING` that are not `known` values."""
    texts = pc.utf8_trim_whitespace(cells)
    is_missing = pc.is_in(texts, pa.array(["", *(MISSING - {*known})], pa.string()))
    return pc.if_else(is_missing, None, cells)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def has_chats(column: pa.ChunkedArray) -> bool:
    """Whether a column holds conversations: lists of messages, or their JSON, judged by the first cell."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        message = column.type.value_type
        return pa.types.is_struct(message) and bool({"role", "from"} & {field.name for field in message})
    first = next((cell for cell in column if cell.is_valid), None) if is_text(column.type) else None
    return first is not None and bool(_messages(first.as_py()))


def chat_texts(column: pa.ChunkedArray, speaker: Literal["user", "assistant"]) -> pa.Array:
    """The last user message of each conversation, or the assistant's reply to it; null if there is none."""
    return pa.array([chat_text(cell, speaker) for cell in column.to_pylist()], pa.string())


def chat_text(value: object, speaker: Literal["user", "assistant"]) -> str | None:
    """The last user message, or the assistant's reply to it; None if there is none."""
    messages = _messages(value)
    users = [number for number, (role, _) in enumerate(messages) if role in _USERS]
    if speaker == "user":
        return messages[users[-1]][1] if users else None
    replies = [text for role, text in messages[users[-1] + 1 if users else 0 :] if role in _ASSISTANTS]
    return replies[-1] if replies else None


def _messages(value: object) -> list[tuple[str, str | None]]:
    """Role and text of each message; empty for any other value."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return []
    if not all(isinstance(message, Mapping) and {"role", "from"} & message.keys() for message in value):
        return []
    return [
        (
            str(message.get("role") or message.get("from")).lower(),
            _content(message.get("content", message.get("value"))),
        )
        for message in value
    ]


def _content(content: Any) -> str | None:
    """The text of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        return "\n".join(part for part in parts if isinstance(part, str)) or None
    return written(content)
