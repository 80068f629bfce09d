"""Routes that take one JSON body and give one model, without FastAPI's machinery for everything else.

They are declared and documented like any other. FastAPI solves dependencies, and parses a body into Python objects
before pydantic sees it: that is half of what the interface costs a request.
"""

from __future__ import annotations

import asyncio
import inspect
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from pipelines.serve.schemas import Refusal

JSON = "application/json"
LONG = 64 * 2**10  # bytes


class JsonRoute(APIRoute):
    """A route whose endpoint is `async (body: Model, request: Request) -> Model | Response`; others are FastAPI's."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if set(inspect.signature(endpoint).parameters) == {"body", "request"}:
            self._model: type[BaseModel] = inspect.signature(endpoint, eval_str=True).parameters["body"].annotation
            self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the application turns what is raised into a response."""
        request = Request(scope, receive)
        _require_json(request)
        content = await request.body()
        # A long body is not parsed on the event loop: others are answered meanwhile, as far as Python lets them.
        body = self._parsed(content) if len(content) < LONG else await asyncio.to_thread(self._parsed, content)
        answer: BaseModel | Response = await self.endpoint(body=body, request=request)
        if not isinstance(answer, Response):
            answer = Response(answer.model_dump_json(), media_type=JSON)
        await answer(scope, receive, send)

    def _parsed(self, content: bytes) -> BaseModel:
        try:
            return self._model.model_validate_json(content.removeprefix(BOM_UTF8))
        except ValidationError as error:
            raise _invalid(error) from None


def _require_json(request: Request) -> None:
    """Refuse other content types: pages of other origins may send forms and text without a preflight, but no JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refusal(422, f"content-type: {JSON} is expected")


def _invalid(error: ValidationError) -> RequestValidationError:
    """The same problems in the form of FastAPI's own routes, without the input."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return RequestValidationError([{**problem, "loc": ("body", *problem["loc"])} for problem in problems])
