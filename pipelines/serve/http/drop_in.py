# No `from __future__ import annotations` here: FastAPI must see the models that are made within a function.
"""The OpenAI-compatible interface in place of an LLM's own: any model name is accepted, and the template decides.

A chat completion of the template that asks for nothing but a label is answered by the cascade: by the small model in
the words of the template, else by the upstream, which gets the caller's own request. All else passes through to the
upstream.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError

from kcm.logs.template import Template
from pipelines.serve.cascade.service import CascadeService
from pipelines.serve.config import LimitsConfig
from pipelines.serve.http.openai_api import ChatRequest, ReplyFormat, ResponseFormat, completion
from pipelines.serve.http.proxy import Proxy, json_body
from pipelines.serve.http.refusals import Refusal
from pipelines.serve.http.relay import RelayedReply
from pipelines.serve.http.spending import parsed

PASSED = ("/completions", "/embeddings", "/responses")  # in addition to chat completions and the list of models

# Fields of a request that a label answers whatever they say.
_WITHOUT_EFFECT = frozenset(
    {"model", "messages", "stream", "stream_options", "response_format", "temperature", "top_p", "seed", "user"}
    | {"max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty", "reasoning_effort"}
    | {"verbosity", "service_tier", "prompt_cache_key", "safety_identifier"}
)
# Fields that a label answers with these values alone.
_WITHOUT_REQUEST: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "store": (False,),
    "tools": ([],),
    "functions": ([],),
    "logit_bias": ({},),
    "modalities": (["text"],),
}
_MODEL_NAME = re.compile(r"[A-Za-z0-9_:@][A-Za-z0-9._:@-]*(/[A-Za-z0-9_:@][A-Za-z0-9._:@-]*)*")


def add_drop_in_routes(
    api: FastAPI, service: CascadeService, limits: LimitsConfig, template: Template, proxy: Proxy
) -> None:
    """Add the paths to an application."""

    @api.get("/v1/models", response_model=None)
    async def models(request: Request) -> Response:
        """The upstream's models."""
        return await proxy.response(request, "/models")

    @api.get("/v1/models/{model:path}", response_model=None)
    async def retrieve(model: str, request: Request) -> Response:
        """One of the upstream's models."""
        if not _MODEL_NAME.fullmatch(model):
            raise Refusal(404, "model: not the name of a model")
        return await proxy.response(request, f"/models/{model}")

    @api.post("/v1/chat/completions", response_model=None)
    async def complete(request: Request) -> Response:
        """The cascade's label in the words of the template, or what the upstream answers: see `x-kcm-route`."""
        match = matching(parsed(await json_body(request)), template, limits)
        if match is None:
            return await proxy.response(request, "/chat/completions")
        body, text = match
        answer = partial(completion, service, request, body, text, template.replies)
        return RelayedReply(proxy, request, template.reading, answer)

    async def pass_through(request: Request) -> Response:
        """What the upstream answers."""
        return await proxy.response(request, request.url.path.removeprefix("/v1"))

    for path in PASSED:
        api.add_api_route(f"/v1{path}", pass_through, methods=["POST"], response_model=None, name=path[1:])


def matching(values: Any, template: Template, limits: LimitsConfig) -> tuple[ChatRequest, str] | None:
    """The request and its text, if it is of the template and asks for nothing but a label; else None."""
    if not isinstance(values, Mapping) or not _asks_for_a_label(values):
        return None
    messages = values.get("messages")
    if not isinstance(messages, list) or not all(
        isinstance(message, Mapping) and message.keys() <= {"role", "content"} for message in messages
    ):
        return None
    text = template.text(messages)
    if text is None or not text.strip() or len(text) > limits.max_text_length:
        return None
    try:
        body = ChatRequest.model_validate(values)
        reply = ReplyFormat.of(body.response_format)
    except (ValidationError, Refusal):  # the upstream may know what to do with it
        return None
    fit = all(_fits(words, body.response_format, reply) for words in template.replies.values())
    return (body, text) if fit else None


def _asks_for_a_label(values: Mapping[str, Any]) -> bool:
    """Whether no field asks for what the cascade cannot give; fields that are not known may."""
    return all(
        name in _WITHOUT_EFFECT or value is None or value in _WITHOUT_REQUEST.get(name, ())
        for name, value in values.items()
    )


def _fits(words: str, asked: ResponseFormat | None, reply: ReplyFormat) -> bool:
    """Whether a reply of the template has the format that a request asks for."""
    if asked is None or asked.type == "text":
        return True
    content = parsed(words.encode("utf-8", "surrogatepass"))
    if not isinstance(content, Mapping) or asked.type == "json_object":
        return isinstance(content, Mapping)
    label = content.get(reply.field or "")
    return len(content) == 1 and isinstance(label, str) and (reply.allowed is None or label in reply.allowed)
