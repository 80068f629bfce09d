"""Promise: a request's head has few bytes, few headers and little time, or the server refuses it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse

from pipelines.serve.http import heads
from pipelines.serve.http.heads import MAX_HEAD_BYTES, MAX_HEADERS, limit_heads

LINE = b"POST / HTTP/1.1\r\nHost: here\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    request = Request(scope, receive)
    await JSONResponse([len(request.headers), len(await request.body())])(scope, receive, send)


@pytest.fixture
async def ask(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Any]]:
    """Sends pieces over one connection to a server as Ray Serve starts it, and returns all that comes back."""
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    limit_heads()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, timeout_keep_alive=1))
        serving = asyncio.create_task(server.serve([listener]))

        async def sent(*pieces: bytes) -> str:
            while not server.started:
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            try:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01)  # in which the server, on the same loop, reads this piece
                return (await asyncio.wait_for(reader.read(), 60)).decode()
            finally:
                writer.close()

        yield sent
        server.should_exit = True
        await serving


def body(size: int) -> bytes:
    return LINE + b"Content-Length: %d\r\n\r\n" % size + b"x" * size


CHUNKED = LINE + b"Transfer-Encoding: chunked\r\n\r\n"
TOO_LONG = b"a" * (MAX_HEAD_BYTES + 1)


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        ([body(5)], ["[2,5]"]),
        ([body(8 * MAX_HEAD_BYTES)], [f"[2,{8 * MAX_HEAD_BYTES}]"]),
        ([body(5) + body(6)], ["[2,5]", "[2,6]"]),
        ([CHUNKED, *[b"1\r\nx\r\n"] * 50, b"0\r\n\r\n"], ["[2,50]"]),
        ([LINE + b"X: y\r\n" * (MAX_HEADERS - 1) + b"\r\n"], [f"[{MAX_HEADERS},0]"]),
    ],
    ids=["small", "long body", "two at once", "small chunks", "most headers"],
)
async def test_usual_requests_are_answered(ask: Any, pieces: list[bytes], answers: list[str]) -> None:
    said = await ask(*pieces)
    assert [said.count(f"\r\n\r\n{answer}") for answer in answers] == [1] * len(answers)


@pytest.mark.parametrize(
    "pieces",
    [
        [LINE + b"X: " + TOO_LONG],
        [LINE, *[b"X-A: " + b"a" * 8000 + b"\r\n"] * 5],
        [b"GET /" + TOO_LONG],
        [LINE + b"X: y\r\n" * MAX_HEADERS + b"\r\n"],
        [CHUNKED, b"1;x=" + TOO_LONG],
        [CHUNKED, b"1\r\nx\r\n0\r\n", b"X: " + TOO_LONG],
        [body(5), LINE + b"X: " + TOO_LONG],
    ],
    ids=[
        "endless header",
        "many bytes",
        "endless path",
        "many headers",
        "endless extension",
        "endless trailer",
        "second",
    ],
)
async def test_endless_heads_are_refused_by_431(ask: Any, pieces: list[bytes]) -> None:
    """Promise: whatever of a request never ends, the client is refused and its connection closed."""
    assert "HTTP/1.1 431 Request Header Fields Too Large" in await ask(*pieces)


@pytest.mark.parametrize(("pieces", "status"), [([LINE], "408 Request Timeout"), ([body(5), LINE], "408"), ([], "")])
async def test_heads_that_stop_are_refused_by_408(
    ask: Any, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes], status: str
) -> None:
    """Promise: a connection does not wait for ever for a head; one that never asked is closed without an answer."""
    monkeypatch.setattr(heads, "HEAD_TIMEOUT_S", 0.2)
    said = await ask(*pieces)
    assert f"HTTP/1.1 {status}" in said if status else not said
