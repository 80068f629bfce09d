"""How refusals, ours and the framework's, become responses of one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pipelines.serve.schemas import Refusal

MAX_PROBLEMS = 5  # that one refusal lists


def add_handlers(api: FastAPI) -> None:
    """Let every refusal, of ours or of the framework, end in one line of JSON."""
    api.add_exception_handler(Refusal, _refused)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(HTTPException, _rejected)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The body of every refusal; `error` is where clients of OpenAI's interface look for the reason."""
    return JSONResponse({"detail": detail, "error": {"message": detail, "code": status}}, status, headers)


def refused(refusal: Refusal) -> JSONResponse:
    """The response to a refused request."""
    return problem(refusal.status, refusal.detail, refusal.headers)


async def _refused(_: Request, refusal: Exception) -> JSONResponse:
    assert isinstance(refusal, Refusal)
    return refused(refusal)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem(422, explain(error.errors()))


async def _rejected(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, error.headers)


def explain(problems: Sequence[Mapping[str, Any]]) -> str:
    """Each problem as `inputs[2].text: what is allowed`, without the input: it may be long, private, not encodable."""
    listed = [f"{_place(problem['loc'])}: {problem['msg']}" for problem in problems[:MAX_PROBLEMS]]
    more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
    return " ".join("; ".join(listed + more).split())


def _place(location: Sequence[int | str]) -> str:
    """`("body", "inputs", 2, "text")` as `inputs[2].text`. A part that a client made up is cut: it may be anything."""
    source, *parts = location
    place = ""
    for part in parts:
        name = str(part)[:40].encode("ascii", "replace").decode()
        place += f"[{part}]" if isinstance(part, int) else f".{name}" if place else name
    return place or str(source)
