"""Routes that take one JSON body and give one model, without FastAPI's machinery for everything else.

They are declared and documented like any other. FastAPI solves dependencies, and parses a body into Python objects
before pydantic sees it: that is half of what the interface costs a request.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from pipelines.serve.errors import Refusal

JSON = "application/json"


class JsonRoute(APIRoute):
    """A route whose endpoint is `async (body: Model, request: Request) -> Model | Response`; others are FastAPI's."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What serves a request; FastAPI asks once."""
        if set(inspect.signature(self.endpoint).parameters) != {"body", "request"}:
            return super().get_route_handler()
        endpoint = self.endpoint
        model = inspect.signature(endpoint, eval_str=True).parameters["body"].annotation

        async def handle(request: Request) -> Response:
            _require_json(request)
            try:
                body = model.model_validate_json(await request.body())
            except ValidationError as error:
                raise _invalid(error) from None
            answer: BaseModel | Response = await endpoint(body=body, request=request)
            if isinstance(answer, Response):
                return answer
            return Response(answer.model_dump_json().encode(), media_type=JSON)

        return handle


def _require_json(request: Request) -> None:
    """Pages of other origins may send forms and plain text unasked, but no JSON: what says it is none is refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refusal(422, f"content-type: {JSON} is expected")


def _invalid(error: ValidationError) -> RequestValidationError:
    """The same problems where FastAPI's own routes tell them, without the input."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return RequestValidationError([{**problem, "loc": ("body", *problem["loc"])} for problem in problems])
