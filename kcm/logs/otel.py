"""Spans of OpenTelemetry's conventions for generative AI, in OTLP's JSON or as an SDK prints them.

Messages are the attributes `gen_ai.input.messages`, `gen_ai.output.messages` and `gen_ai.system_instructions` (from
version 1.37 of the conventions), or numbered attributes `gen_ai.prompt.0.content` (OpenLLMetry). Spans without content,
or with content in events (before 1.37), are calls that fit no template.
Source: opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans, its JSON schemas of messages; opentelemetry-proto.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kcm.logs.call import ChatMessage, LoggedCall, Row, first, plain, unpacked

_CHATS = ("chat", "text_completion", "generate_content")


def calls(row: Row) -> list[LoggedCall] | None:
    """The calls of a row; None if the row has another format."""
    if not {"resourceSpans", "scopeSpans", "spans"} & row.keys() and "attributes" not in row:
        return None
    return [call for span in _spans(row) if (call := _call(span))]


def _spans(row: Row) -> Iterator[Row]:
    """The spans of an export, at any level of it."""
    inner = next((row[name] for name in ("resourceSpans", "scopeSpans", "spans") if name in row), None)
    if inner is None:
        yield row
        return
    for part in inner:
        yield from _spans(part)


def _call(span: Row) -> LoggedCall | None:
    attributes = _attributes(span.get("attributes"))
    operation = attributes.get("gen_ai.operation.name", "chat")
    if operation not in _CHATS or not any(name.startswith("gen_ai.") for name in attributes):
        return None
    messages, reply = _content(attributes)
    status = span.get("status") or {}
    code = first(status, "code", "status_code") if isinstance(status, Mapping) else status
    failed = code in (2, "ERROR", "STATUS_CODE_ERROR") or "error.type" in attributes
    return LoggedCall.of(
        () if attributes.get("gen_ai.tool.definitions") else messages,
        reply,
        model=first(attributes, "gen_ai.response.model", "gen_ai.request.model"),
        tokens=(
            first(attributes, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
            first(attributes, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
        ),
        cost=first(attributes, "gen_ai.usage.cost"),
        time=first(span, "startTimeUnixNano", "start_time", "startTime"),
        failed=failed,
    )


def _attributes(attributes: object) -> dict[str, Any]:
    """Attributes by name; OTLP has a list of keys with typed values."""
    if isinstance(attributes, Mapping):
        return dict(attributes)
    if not isinstance(attributes, list):
        return {}
    return {
        entry["key"]: _value(entry.get("value")) for entry in attributes if isinstance(entry, dict) and "key" in entry
    }


def _value(value: Any) -> Any:
    match value:
        case {"arrayValue": {"values": [*values]}}:
            return [_value(value) for value in values]
        case {"kvlistValue": {"values": [*values]}}:
            return {entry["key"]: _value(entry.get("value")) for entry in values}
        case dict() if len(value) == 1:
            return next(iter(value.values()))
    return value


def _content(attributes: Row) -> tuple[tuple[ChatMessage, ...], str | None]:
    """The messages and the reply, in the first of the two forms that the span has."""
    if "gen_ai.input.messages" in attributes:
        system = plain(unpacked(attributes.get("gen_ai.system_instructions")), "content")
        messages = _with_parts(attributes["gen_ai.input.messages"])
        output = _with_parts(attributes.get("gen_ai.output.messages"))
        start: list[ChatMessage] = [{"role": "system", "content": system}] if system else []
        return (*start, *messages), _text(output[-1]["content"]) if output else None
    return tuple(_numbered(attributes)), _text(attributes.get("gen_ai.completion.0.content"))


def _with_parts(messages: object) -> tuple[ChatMessage, ...]:
    """Messages whose parts are their content; a part that is no text makes it None, which fits no template."""
    messages = unpacked(messages)
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return ()
    return tuple(
        {"role": message.get("role"), "content": plain(message.get("parts"), "content")} for message in messages
    )


def _numbered(attributes: Row) -> Iterator[ChatMessage]:
    position = 0
    while (role := attributes.get(f"gen_ai.prompt.{position}.role")) is not None:
        yield {"role": role, "content": attributes.get(f"gen_ai.prompt.{position}.content")}
        position += 1


def _text(content: object) -> str | None:
    return content if isinstance(content, str) else None
