"""One logged call of a language model, whatever the log, and the shapes that logs of several formats share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, TypeAlias

ChatMessage: TypeAlias = Mapping[str, object]
"""Role and content of a message. A content that is no string, such as parts with an image, fits no template."""

Row: TypeAlias = Mapping[str, Any]
"""A row of a log: an object of JSON, or the cells of a table."""

# Units of a number since 1970, by the least number that is read as one: nanoseconds, micro- and milliseconds.
_UNITS = {1e17: 1e9, 1e14: 1e6, 1e11: 1e3}


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """A call: the messages of the request, the text of the reply, and what it cost.

    `reply` is None if the model wrote no text, for example because it called a tool. `messages` are empty if the
    request is not plain text, such as one with tools. `time` counts seconds since 1970. `cost` is in dollars. Each is
    None if the log does not have it. Headers, keys and users are never read.
    """

    messages: tuple[ChatMessage, ...]
    reply: str | None
    model: str = ""
    num_read: int | None = None
    num_written: int | None = None
    cost: float | None = None
    time: float | None = None
    failed: bool = False

    @classmethod
    def of(
        cls,
        messages: tuple[ChatMessage, ...],
        reply: str | None,
        *,
        model: object,
        tokens: tuple[object, object],
        cost: object,
        time: object,
        failed: bool,
    ) -> Self:
        """From values as logs have them; `tokens` are the numbers read and written. A failed call has no reply."""
        num_read, num_written = map(count, tokens)
        reply = None if failed else reply
        return cls(messages, reply, str(model or ""), num_read, num_written, number(cost), seconds(time), failed)


def chat_or_text(question: object) -> tuple[ChatMessage, ...]:
    """As `chat`; a text is the message of a user."""
    return chat(question) or (({"role": "user", "content": question},) if isinstance(question, str) else ())


def chat(messages: object) -> tuple[ChatMessage, ...]:
    """The messages of a chat request; () for any other value."""
    messages = unpacked(messages)
    if isinstance(messages, Mapping):
        messages = messages.get("messages")
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        return ()
    if not all(isinstance(message, Mapping) and isinstance(message.get("role"), str) for message in messages):
        return ()
    return tuple({"role": message["role"], "content": message.get("content")} for message in messages)


def assistant_text(reply: object) -> str | None:
    """The text of a reply: a string, a message, a completion with choices, or a chat that ends with a message.

    Any other object is a structured answer, as JSON.
    """
    match unpacked(reply):
        case {"choices": [choice, *_]}:
            return assistant_text(choice)
        case {"choices": []}:
            return None
        case {"message": {"content": content}} | {"role": str(), "content": content}:
            return content if isinstance(content, str) else plain(content)
        case [*_, {"role": str(), "content": content}]:
            return content if isinstance(content, str) else plain(content)
    return reply if isinstance(reply, str) or reply is None else json.dumps(reply, ensure_ascii=False)


def plain(parts: object, key: str = "text") -> str | None:
    """The text of a list of text parts; None if a part is something else."""
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        return None
    texts = [part.get(key) if isinstance(part, Mapping) else None for part in parts]
    return "\n".join(map(str, texts)) if texts and all(isinstance(text, str) for text in texts) else None


def unpacked(value: object) -> Any:
    """The value that a text of JSON holds, since databases export objects as text; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def section(row: Row, *names: str) -> Row:
    """The first of the objects of these names; empty if there is none."""
    for name in names:
        value = unpacked(row.get(name))
        if isinstance(value, Mapping):
            return value
    return {}


def first(row: Row, *names: str) -> Any:
    """The value of the first of these names that has one."""
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def number(value: object) -> float | None:
    """A finite number that is not negative, also one written as text."""
    try:
        amount = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None


def count(value: object) -> int | None:
    """A number of tokens."""
    amount = number(value)
    return None if amount is None else int(amount)


def seconds(value: object) -> float | None:
    """Seconds since 1970, from a date, a text in ISO 8601, or a number of seconds, or of milli-, micro- or nanoseconds.

    A time without a zone is in UTC, as databases store it.
    """
    if isinstance(value, str) and number(value) is None:
        try:
            value = datetime.fromisoformat(value.strip().replace(" UTC", "+00:00"))
        except ValueError:
            return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    amount = number(value)
    if amount is None:
        return None
    return amount / next((unit for least, unit in _UNITS.items() if amount >= least), 1)
