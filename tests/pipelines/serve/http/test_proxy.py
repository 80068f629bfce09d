"""Attacks on what passes through: upstreams that stall, flood and redirect, callers that leave or read slowly."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest
from starlette.types import ASGIApp

from kcm.logs.template import Template
from pipelines.serve.config import ProxyConfig, ServeConfig
from pipelines.serve.http import proxy as module
from pipelines.serve.http.api import create_api
from tests.pipelines.serve.conftest import StubService
from tests.pipelines.serve.stubs import request_to

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM, WHOLE = HEAD.format("text/event-stream").encode(), HEAD.format("application/json").encode()
EVENT = b'data: {"choices": []}\n\n'


def chunked(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


@dataclass
class RawUpstream:
    """A server that does with each connection, once its request is read, what a test says; counts those open."""

    act: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    address: str = ""
    heads: list[bytes] = field(default_factory=list)
    num_open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_open += 1
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            await self.act(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.num_open -= 1
            writer.close()

    async def until_closed(self) -> None:
        async with asyncio.timeout(20):
            while self.num_open:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def raw_upstream(act: Any) -> AsyncIterator[RawUpstream]:
    upstream = RawUpstream(act)
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, backlog=2048)
    upstream.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield upstream
    finally:
        server.close()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says nothing until the caller hangs up."""
    while await reader.read(65536):
        pass


async def streaming(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begins a stream and goes silent."""
    writer.write(STREAM + chunked(EVENT))
    await silent(reader, writer)


def flooding(head: bytes) -> Any:
    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Sends 10 GB, if nobody stops it."""
        writer.write(head)
        piece = chunked(b"x" * 2**16)
        for _ in range(10 * 2**30 // 2**16):
            writer.write(piece)
            await writer.drain()

    return act


def cut(content: bytes) -> Any:
    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begins a stream and hangs up in the middle."""
        writer.write(STREAM + content)
        await writer.drain()

    return act


async def redirecting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends its caller elsewhere."""
    location = b"http://169.254.169.254/latest/meta-data"
    writer.write(b"HTTP/1.1 307 Go\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers as soon as it can."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    await writer.drain()


def api_of(service: StubService, address: str, serve: dict[str, Any] | None = None, **options: Any) -> ASGIApp:
    proxy = ProxyConfig(upstream=address, template=Template(before="Review: "), **{"api_key_env": None} | options)
    return create_api(service, ServeConfig(proxy=proxy, allowed_hosts=("test",), **serve or {}))  # type: ignore[arg-type]


BODY = b'{"model": "m", "messages": [], "stream": true}'


@dataclass
class Caller:
    """One request to an application, spoken in ASGI: how it reads and when it leaves is a test's to say."""

    api: ASGIApp
    path: str = "/v1/chat/completions"
    method: str = "POST"
    body: bytes = BODY
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ((b"host", b"test"), (b"content-type", b"application/json"))
    reads: bool = True
    status: int = 0
    content: bytes = b""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    _sent: bool = False

    async def ask(self) -> None:
        scope = request_to(self.path, self.method, self.headers, ("127.0.0.1", 1)) | {"query_string": self.query}
        scope["headers"] = list(self.headers)
        await self.api(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.content += message.get("body", b"")
        if self.content:
            self.begun.set()
            if not self.reads:
                await asyncio.Event().wait()


async def asked(api: ASGIApp, **options: Any) -> Caller:
    caller = Caller(api, **options)
    async with asyncio.timeout(60):
        await caller.ask()
    return caller


@pytest.mark.parametrize(("act", "cancelled"), [(silent, False), (streaming, False), (silent, True)])
async def test_caller_that_leaves_closes_the_upstream_call(service: StubService, act: Any, cancelled: bool) -> None:
    """Before the reply begins, in the middle of a stream, and when Ray Serve cancels what a client has left."""
    async with raw_upstream(act) as upstream:
        caller = Caller(api_of(service, upstream.address))
        task = asyncio.create_task(caller.ask())
        while not (upstream.heads and (act is silent or caller.begun.is_set())):
            await asyncio.sleep(0.01)
        assert upstream.num_open == 1
        task.cancel() if cancelled else caller.gone.set()
        await asyncio.wait([task], timeout=20)
        await upstream.until_closed()
    assert cancelled or service.metrics.passed == [499]
    assert service.metrics.num_failed == 0


@pytest.mark.parametrize("options", [{"idle_timeout_s": 0.1}, {"timeout_s": 0.1}], ids=str)
async def test_upstream_that_never_answers(service: StubService, options: dict[str, float]) -> None:
    async with raw_upstream(silent) as upstream:
        caller = await asked(api_of(service, upstream.address, **options))
        assert (caller.status, "error" in json.loads(caller.content)) == (504, True)
        await upstream.until_closed()
    assert service.metrics.passed == [504]


@pytest.mark.parametrize(
    ("act", "options", "error"),
    [
        (streaming, {"idle_timeout_s": 0.2}, openai.APIError),
        (streaming, {"timeout_s": 0.2}, openai.APIError),
        (flooding(STREAM), {}, openai.APIError),
        (cut(chunked(EVENT)), {}, openai.APIError),
        (cut(chunked(EVENT)[:-7]), {}, json.JSONDecodeError),
    ],
    ids=["idle", "too long", "10 GB", "cut", "cut within an event"],
)
async def test_stream_that_is_cut_ends_with_an_error(
    service: StubService, monkeypatch: pytest.MonkeyPatch, act: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    """OpenAI's client raises it, and the service counts no error of its own."""
    monkeypatch.setattr(module, "MAX_REPLY_BYTES", 2**20)
    async with raw_upstream(act) as upstream:
        transport = httpx.ASGITransport(api_of(service, upstream.address, **options))
        http = httpx.AsyncClient(transport=transport)
        chat = openai.AsyncOpenAI(base_url="http://test/v1", api_key="k", http_client=http, max_retries=0)
        stream = await chat.chat.completions.create(model="m", messages=[], stream=True)
        with pytest.raises(error):
            _ = [chunk async for chunk in stream]
        await upstream.until_closed()
    assert service.metrics.num_failed == 0
    assert service.metrics.passed[0] in (502, 504)


async def test_reply_of_10_gb_is_given_up(service: StubService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REPLY_BYTES", 2**20)
    async with raw_upstream(flooding(WHOLE)) as upstream:
        caller = await asked(api_of(service, upstream.address))
        assert (caller.status, len(caller.content) < 1000) == (502, True)
        await upstream.until_closed()


async def test_redirect_is_not_followed(service: StubService) -> None:
    async with raw_upstream(redirecting) as upstream:
        caller = await asked(api_of(service, upstream.address))
        assert (caller.status, len(upstream.heads)) == (502, 1)
        assert b"169.254" not in caller.content


async def test_unreachable_upstream(service: StubService) -> None:
    async with raw_upstream(silent) as upstream:
        pass
    caller = await asked(api_of(service, upstream.address))
    assert (caller.status, b"does not answer: ConnectError" in caller.content) == (502, True)


async def test_1000_streams_stop_at_the_limit(service: StubService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest gets 429, ordinary requests are answered meanwhile, and every place is free again afterwards."""
    monkeypatch.setattr(module, "MAX_OPEN", 100)
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 60.0)  # a busy machine connects late
    async with raw_upstream(streaming) as upstream:
        api = api_of(service, upstream.address, serve={"max_ongoing_requests": 8, "max_batch_size": 8})
        callers = [Caller(api) for _ in range(1000)]
        tasks = [asyncio.create_task(caller.ask()) for caller in callers]
        async with asyncio.timeout(60):
            while sum(caller.begun.is_set() for caller in callers) < 1000:
                await asyncio.sleep(0.05)
        statuses = Counter(caller.status for caller in callers)
        assert (statuses[200], statuses[429]) == (100, 900)
        assert upstream.num_open == 100
        label = {"model": "m", "messages": [{"role": "user", "content": "Review: a film"}]}
        assert (await asked(api, body=json.dumps(label).encode())).status == 200
        for caller in callers:
            caller.gone.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 60)
        await upstream.until_closed()
        again = Caller(api)
        task = asyncio.create_task(again.ask())
        await asyncio.wait_for(again.begun.wait(), 20)
        assert again.status == 200
        task.cancel()
        await asyncio.wait([task])


async def test_calls_that_wait_hold_no_place_of_the_cascade(service: StubService) -> None:
    """An upstream that never answers does not fill the room of requests that the cascade answers."""
    async with raw_upstream(silent) as upstream:
        room = {"max_ongoing_requests": 2, "max_queued_requests": 0, "max_batch_size": 2}
        api = api_of(service, upstream.address, serve=room)
        tasks = []
        for number in range(1, 5):
            tasks.append(asyncio.create_task(Caller(api).ask()))
            while len(upstream.heads) < number:
                await asyncio.sleep(0.01)
        label = {"model": "m", "messages": [{"role": "user", "content": "Review: a film"}]}
        assert (await asked(api, body=json.dumps(label).encode())).status == 200
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_slow_reader_holds_its_stream_for_a_limited_time(
    service: StubService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FAREWELL_S", 0.1)
    async with raw_upstream(flooding(STREAM)) as upstream:
        await asked(api_of(service, upstream.address, timeout_s=0.3), reads=False)
        await upstream.until_closed()
    assert service.metrics.passed == [504]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../admin",
        "/v1/chat/completions/../../../admin",
        "/v1//admin",
        "/v1/models/../files",
        "/v1/models/a/../../organization/keys",
        "/v1/models/.",
        "/v1/models/a?b",
        "/v1/models/a#b",
        "/v1/models/a b\r\nx: y",
        "/v1/models//evil.example/x",
        "/v1/models/http://evil.example",
        "/v1/files",
        "/v1/fine_tuning/jobs",
        "/v1/organization/admin_api_keys",
        "http://evil.example/v1/models",
        "/V1/models",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_paths_beyond_the_list_never_reach_the_upstream(service: StubService, path: str, method: str) -> None:
    async with raw_upstream(answering) as upstream:
        caller = await asked(api_of(service, upstream.address), path=path, method=method)
        assert caller.status in (404, 405)
        assert upstream.heads == []


@pytest.mark.parametrize("hosts", [[b"evil.example"], [b"test", b"evil.example"], [b"evil.example@test"], []], ids=str)
async def test_host_decides_no_address(service: StubService, hosts: list[bytes]) -> None:
    headers = (*((b"host", host) for host in hosts), (b"content-type", b"application/json"))
    async with raw_upstream(answering) as upstream:
        caller = await asked(api_of(service, upstream.address), headers=headers)
        assert (caller.status, upstream.heads) == (421, [])


async def test_bytes_that_are_no_text_are_no_error_of_ours(service: StubService) -> None:
    """In a query, in a header of the caller, in a header of the upstream."""

    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: a/\xe2\x82\xac\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    async with raw_upstream(odd) as upstream:
        api = api_of(service, upstream.address)
        headers = ((b"host", b"test"), (b"content-type", b"application/json"), (b"accept", b"\xff\xe2\x82\xac"))
        assert (await asked(api, headers=headers)).status == 200
        assert b"\xff\xe2\x82\xac" in upstream.heads[0]
        for query in (b"a=\xff", b"a=b c", b"a#b", b"a=" + b"x" * 70_000):
            assert (await asked(api, query=query)).status == 422
        assert (await asked(api, query=b"a=%0d%0ab%20c")).status == 200
        assert upstream.heads[-1].startswith(b"POST /v1/chat/completions?a=%0d%0ab%20c HTTP/1.1\r\n")
    assert service.metrics.num_failed == 0
