# No `from __future__ import annotations` here: FastAPI must see the models that are made within a function.
"""An OpenAI-compatible interface: clients that classify by a chat model can ask the cascade without a change.

The last message of the user is classified, or the part between its lines <<< and >>> where it has them (as in
`kcm.large.prompts.render`). A system prompt is refused unless the text has these lines: it would have no effect. The
answer is the label; a label counts as one token where log-probabilities are asked for.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

from kcm.bundle.answers import Answer, Input
from kcm.inputs.content import Content
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.config import LimitsConfig
from pipelines.serve.http.refusals import Refusal
from pipelines.serve.schemas import PredictResponse, Problem

MODEL = "kcm"
ROUTE_HEADER, VERSION_HEADER, REQUEST_HEADER = "x-kcm-route", "x-kcm-version", "x-kcm-request-id"

BEGIN, END = "<<<\n", "\n>>>"  # as `kcm.large.prompts.render` writes them around a text
MAX_MESSAGES, MAX_PARTS = 1000, 100
MAX_MESSAGE_LENGTH = 1_000_000  # characters of a message, instructions around the text among them

_SCHEMA = "response_format.json_schema.schema"
_PRINTABLE = "".join(set(map(chr, range(0x21, 0x7F))) - {"%"})
_Text = Annotated[str, Field(max_length=MAX_MESSAGE_LENGTH)]


class TextPart(BaseModel):
    """A part of a message; only text can be classified."""

    type: Literal["text"]
    text: _Text


class ChatMessage(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: _Text | Annotated[list[TextPart], Field(max_length=MAX_PARTS, fail_fast=True)] | None = None

    @property
    def text(self) -> str:
        """All text of the message."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class ResponseFormat(BaseModel):
    """`response_format` of a request."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class StreamOptions(BaseModel):
    """What a stream carries in addition to the label."""

    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """A chat completion as OpenAI's clients ask for it; what only steers generation is accepted and has no effect."""

    model: Annotated[str, Field(max_length=200)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    n: Annotated[Literal[1] | None, Field(description="There is one label.")] = None
    stream: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    response_format: ResponseFormat | None = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[Any] | None, Field(description="Refused, unless tool_choice is none.")] = None
    functions: Annotated[list[Any] | None, Field(description="Refused, as tools are.")] = None
    tool_choice: Any = None


def add_openai_routes(api: FastAPI, service: CascadeService, limits: LimitsConfig) -> None:
    """Add the paths to an application."""

    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model."""
        return {"object": "list", "data": [MODEL_CARD]}

    @api.get("/v1/models/{model}", responses=_UNKNOWN_MODEL)
    async def retrieve(model: str) -> dict[str, Any]:
        """The one model."""
        _require_model(model)
        return MODEL_CARD

    @api.post("/v1/chat/completions", responses={200: {"content": {"text/event-stream": {}}}, **_UNKNOWN_MODEL})
    async def complete(body: ChatRequest, request: Request) -> Response:
        """Classify the user's last message; the answer is its label, the route stands in `x-kcm-route`."""
        _require_model(body.model)
        _refuse_tools(body.tools, body.functions, body.tool_choice)
        return await _completion(service, request, body, _question(body.messages, limits.max_text_length))


async def _completion(service: CascadeService, request: Request, body: ChatRequest, text: str) -> Response:
    """The completion whose content is the label of `text`."""
    reply = ReplyFormat.of(body.response_format)
    response = await service.predict([Input(Content(text))], request.state.origin)
    (answer,) = response.answers
    request.state.log |= {"model_version": response.model_version, "routes": [answer.route]}
    headers, usage, message = _headers(response, answer), _usage(text), reply.message(answer.label)
    if body.stream:
        last = usage if body.stream_options and body.stream_options.include_usage else None
        chunks = _chunks(_head(response, body.model, "chat.completion.chunk"), message, last)
        return StreamingResponse(chunks, headers=headers, media_type="text/event-stream")
    choice = {
        "index": 0,
        "message": {"role": "assistant"} | message,
        "finish_reason": "stop",
        "logprobs": _logprobs(answer, body.top_logprobs or 0) if body.logprobs else None,
    }
    head = _head(response, body.model, "chat.completion")
    return JSONResponse(head | {"choices": [choice], "usage": usage}, headers=headers)


@dataclass(frozen=True)
class ReplyFormat:
    """`field` holds the label in a JSON reply, None for plain text; `allowed` are the labels of a schema."""

    field: str | None = None
    allowed: tuple[str, ...] | None = None

    @classmethod
    def of(cls, asked: ResponseFormat | None) -> "ReplyFormat":
        """Raises Refusal for a schema that holds more than a label."""
        if asked is None or asked.type == "text":
            return cls()
        if asked.type == "json_object":
            return cls("label")
        schema = (asked.json_schema or {}).get("schema")
        properties = schema.get("properties") if isinstance(schema, Mapping) else None
        if not isinstance(properties, Mapping) or len(properties) != 1:
            raise Refusal(422, f"{_SCHEMA}: must be an object with one property, which is to hold the label")
        ((field, described),) = properties.items()
        if not _is_unicode(field):
            raise Refusal(422, f"{_SCHEMA}: the property's name is no Unicode text (half a surrogate pair)")
        if not isinstance(described, Mapping) or described.get("type", "string") != "string":
            raise Refusal(422, f"{_SCHEMA}: the property must be a string, or an enum of strings")
        values = described.get("enum")
        if values is None:
            return cls(field)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise Refusal(422, f"{_SCHEMA}: the property must be a string, or an enum of strings")
        return cls(field, tuple(values))

    def message(self, label: str) -> dict[str, str | None]:
        """`content` and `refusal` of the reply: a label that a schema does not allow is refused, never changed."""
        if self.allowed is not None and label not in self.allowed:
            return {"content": None, "refusal": f"the answer is {label!r}, which the schema does not allow"}
        content = label if self.field is None else json.dumps({self.field: label}, ensure_ascii=False)
        return {"content": content, "refusal": None}


def _is_unicode(text: str) -> bool:
    """Whether a text can be sent: JSON's escapes can name half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _refuse_tools(tools: object, functions: object, tool_choice: object) -> None:
    """Raise Refusal for tools that the reply would have to choose from."""
    named = "tools" if tools else "functions"
    if (tools or functions) and tool_choice != "none":
        raise Refusal(422, f"{named}: the model classifies and calls no functions; leave them out, or tool_choice none")


_UNKNOWN_MODEL: dict[int | str, dict[str, Any]] = {404: {"model": Problem}}
MODEL_CARD = {"id": MODEL, "object": "model", "created": 0, "owned_by": MODEL}


def _require_model(model: str) -> None:
    if model != MODEL:
        raise Refusal(404, f"model: the only model here is {MODEL!r}")


def _question(messages: Sequence[ChatMessage], max_length: int) -> str:
    """The text to classify; Refusal if there is none, or too much."""
    index, content = next(
        ((i, messages[i].text) for i in reversed(range(len(messages))) if messages[i].role == "user"), (0, None)
    )
    if content is None:
        raise Refusal(422, "messages: there is none of the role 'user'")
    text = text_between_marks(content)
    prompts = [i for i, message in enumerate(messages) if message.role in ("system", "developer") and message.text]
    if prompts and text == content:
        detail = "the model takes no instructions: leave them out, or put the text between lines <<< and >>>"
        raise Refusal(422, f"messages[{prompts[0]}]: {detail}")
    if not text.strip():
        raise Refusal(422, f"messages[{index}].content: the text is empty: there is nothing to classify")
    if len(text) > max_length:
        raise Refusal(422, f"messages[{index}].content: String should have at most {max_length} characters")
    return text


def text_between_marks(content: str) -> str:
    """The text between the first line <<< and the last line >>> after it; the whole text without such lines."""
    start = content.find(BEGIN) + len(BEGIN)
    end = content.rfind(END, start) if start >= len(BEGIN) else -1
    return content if end < 0 else content[start:end].strip()


def _head(response: PredictResponse, model: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{response.request_id}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": response.model_version,
    }


def _headers(response: PredictResponse, answer: Answer) -> dict[str, str]:
    """What OpenAI's interface has no place for."""
    numbers = {"threshold": answer.threshold, "answer-probability": answer.answer_probability}
    known = {f"x-kcm-{name}": f"{value:.6g}" for name, value in numbers.items() if value is not None}
    return known | {
        ROUTE_HEADER: answer.route,
        VERSION_HEADER: quote(response.model_version, safe=_PRINTABLE, errors="replace"),  # headers are ASCII
        REQUEST_HEADER: response.request_id,
        "x-kcm-judge-confidence": f"{answer.judge_confidence:.6g}",
        "x-kcm-gate-score": f"{answer.gate_score:.6g}",
        "x-kcm-degraded": str(answer.degraded).lower(),
    }


def _usage(text: str) -> dict[str, int]:
    """Words of the classified text, since each model behind it has tokens of its own; a label counts as one."""
    words = len(text.split())
    return {"prompt_tokens": words, "completion_tokens": 1, "total_tokens": words + 1}


def _chunks(head: dict[str, Any], message: dict[str, str | None], usage: dict[str, int] | None) -> Iterator[str]:
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant"} | message, None), ({}, "stop")]
    for delta, reason in deltas:
        chunk = head | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        yield f"data: {json.dumps(chunk)}\n\n"
    if usage is not None:
        yield f"data: {json.dumps(head | {'choices': [], 'usage': usage})}\n\n"
    yield "data: [DONE]\n\n"


def _logprobs(answer: Answer, top: int) -> dict[str, Any]:
    """Of the labels that the answer lists; a label without a known probability has none."""
    listed = [_token(label, probability) for label, probability in answer.probabilities.items()]
    chosen = _token(answer.label, answer.probabilities.get(answer.label, 1.0))
    return {"content": [chosen | {"top_logprobs": listed[:top]}], "refusal": None}


def _token(label: str, probability: float) -> dict[str, Any]:
    # -9999 is what OpenAI's own interface gives for what has no probability to speak of.
    logprob = math.log(probability) if probability > 0 else -9999.0
    return {"token": label, "logprob": logprob, "bytes": list(label.encode())}
