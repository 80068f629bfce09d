"""A replica takes as many requests as it is configured for, whenever they come, and no more."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from pipelines.serve import config
from pipelines.serve.config import LimitsConfig, ServeConfig
from pipelines.serve.http import middleware
from pipelines.serve.http.api import create_api
from pipelines.serve.http.middleware import BodyLimit, Downloads, RequestLimit, RequestLog, exceeds
from tests.pipelines.serve.stubs import StubMetrics, request_to, sending, statuses_of

CONFIG = ServeConfig(max_ongoing_requests=3, max_queued_requests=2, max_batch_size=2)


class Held:
    """An application whose requests end when they are let go."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.go.wait()
            await PlainTextResponse("done")(scope, receive, send)
        finally:
            self.inside -= 1


def logged(app: Any) -> RequestLog:
    """A middleware behind the outermost one, which answers refusals."""
    return RequestLog(app, failed=lambda: None)


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
async def asker(held: Held) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `held` behind a limit of requests."""
    transport = httpx.ASGITransport(app=logged(RequestLimit(held, CONFIG, StubMetrics())))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def asking(client: httpx.AsyncClient, number: int) -> list[asyncio.Task[httpx.Response]]:
    asked = [asyncio.create_task(client.get("/v1/model")) for _ in range(number)]
    for _ in range(20):
        await asyncio.sleep(0)
    return asked


async def test_burst_is_refused_only_beyond_the_room(held: Held, asker: httpx.AsyncClient) -> None:
    """Promise: what comes at one moment is refused only beyond the room for it."""
    asked = await asking(asker, 8)
    refused = [task.result() for task in asked if task.done()]
    assert [(each.status_code, each.headers["retry-after"]) for each in refused] == [(429, "1")] * 3
    held.go.set()
    assert sorted(response.status_code for response in await asyncio.gather(*asked)) == [200] * 5 + [429] * 3
    assert held.most == 3
    assert [task.result().status_code for task in await asking(asker, 5)] == [200] * 5


async def test_clients_that_leave_give_their_places_back(held: Held, asker: httpx.AsyncClient) -> None:
    for task in await asking(asker, 5):  # some are worked on, some wait
        task.cancel()
    asked = await asking(asker, 5)
    held.go.set()
    assert [response.status_code for response in await asyncio.gather(*asked)] == [200] * 5


async def test_slow_reader_of_a_response_holds_no_place() -> None:
    """Promise: a client that does not read its response holds up nobody."""
    limit = RequestLimit(PlainTextResponse("done"), CONFIG, StubMetrics())
    scope = request_to("/v1/model", "GET")

    async def not_read(message: Any) -> None:
        await asyncio.sleep(3600)

    readers = [asyncio.create_task(limit(dict(scope), never, not_read)) for _ in range(50)]
    await asyncio.sleep(0)
    sent: list[Any] = []

    async def read(message: Any) -> None:
        sent.append(message)

    await limit(dict(scope), never, read)
    assert sent[0]["status"] == 200
    for reader in readers:
        reader.cancel()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/page/main.js", "/docs", "/openapi.json"])
async def test_a_busy_service_still_answers_its_probes(held: Held, asker: httpx.AsyncClient, path: str) -> None:
    asked = await asking(asker, 5)
    probe = asyncio.create_task(asker.get(path))
    await asyncio.sleep(0.01)
    held.go.set()
    assert (await probe).status_code == 200
    await asyncio.gather(*asked)


LIMITS = LimitsConfig(max_body_bytes=100, body_timeout_s=0.02)
JSON_TYPE = (b"content-type", b"application/json")


def values_in(value: Any) -> int:
    """Keys and values, counted one by one."""
    if isinstance(value, dict):
        return 1 + sum(1 + values_in(each) for each in value.values())
    return 1 + sum(map(values_in, value)) if isinstance(value, list) else 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text('\\",[]{}:a\n', max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text('\\",{[ab', max_size=4), inner, max_size=5),
    max_leaves=30,
)


@settings(max_examples=150, derandomize=True, database=None)
@given(value=JSON)
def test_json_values_are_counted_and_strings_hide_none(value: Any) -> None:
    """Promise: no json has more values than are counted and strings hide none."""
    body = json.dumps(value).encode()
    number = values_in(value)
    assert number == 1 or exceeds(body, (number - 1) // 2)  # a bound on the count, from below ...
    assert not exceeds(body, 2 * number)  # ... and from above


@pytest.mark.parametrize("piece", [b"[", b"{},", b'""', b'"",', b'{"a":', b"1,", b'"\\"",'])
def test_floods_that_are_no_json_exceed_the_limit(piece: bytes) -> None:
    assert exceeds(piece * 3000, 1600)


def test_floods_are_refused_unparsed_at_every_interface(
    client_of: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "MAX_JSON_VALUES", 1600)
    client = client_of()
    for path in ("/v1/predict", "/v1/explain", "/v1/feedback", "/v1/chat/completions"):
        answer = client.post(path, content=b"[" * 3000, headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert answer.json()["detail"] == "body: at most 1600 JSON keys and values are allowed"


def test_other_encodings_hide_no_flood(client: TestClient) -> None:
    """Promise: values are counted in every body that is parsed: in UTF-16 some characters look like quotation marks."""
    body = '{"a":"\u2200","inputs":[1,1]}'.encode("utf-16-le")
    answer = client.post("/v1/predict", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (400, "body: must be JSON in UTF-8")


def test_largest_allowed_request_is_answered(
    client_of: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: the largest request that the other limits allow is answered."""
    monkeypatch.setattr(config, "MAX_JSON_VALUES", 1)
    client = client_of()
    label = {"item": 0, "label": "good", "text": ",[{" * 1000, "task": "movies"}
    labels = [label | {"item": number} for number in range(128)]
    assert client.post("/v1/feedback", json={"request_id": "mine", "labels": labels}).status_code == 200
    inputs = [{"text": ",[{" * 1000, "image": "", "task": "movies"}] * 128
    for item in inputs:
        item["image"] = "AAAA"
    assert client.post("/v1/predict", json={"inputs": inputs}).status_code == 200


async def status_and_head(receive: Callable[[], Awaitable[Any]], app: Any) -> list[Any]:
    """What is sent to a client that sends as `receive` does."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await logged(BodyLimit(app, LIMITS, StubMetrics()))(request_to("/v1/predict"), receive, send)
    return sent


async def never(*_: Any) -> None:
    raise AssertionError("the application must not be asked")


@pytest.mark.parametrize("pause_s", [60.0, 0.004], ids=["stops", "drips"])
async def test_slow_body_loses_its_place(pause_s: float) -> None:
    """Promise: a client that does not send its body in time loses its place."""

    async def slow() -> Any:
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": b" ", "more_body": True}

    start, body = await status_and_head(slow, never)
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
    assert json.loads(body["body"])["error"] == {"message": "body: not sent within 0.02 s", "code": 408}


async def test_partial_body_of_a_left_client_is_not_a_body() -> None:
    """Promise: what a client sent before it left is not taken for a body."""
    messages = [{"type": "http.request", "body": b"{}", "more_body": True}, {"type": "http.disconnect"}]

    async def leaving() -> Any:
        return messages.pop(0)

    assert await status_and_head(leaving, never) == []


class Attackers:
    """Clients of one interface that send the first byte of a body, then nothing; all from one address or many."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.statuses: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []

    def attack(self, path: str, number: int, peers: int = 1, announced: bool = True) -> None:
        method = "GET" if path == "/" else "POST"
        headers = [(b"content-length", b"100")] if announced else [(b"transfer-encoding", b"chunked")]
        for index in range(number):
            client = (f"10.0.0.{index % peers}", 1000 + index)
            self._tasks.append(asyncio.create_task(self._stall(request_to(path, method, headers, client))))

    async def _stall(self, scope: dict[str, Any]) -> None:
        self.statuses += await statuses_of(self.app, scope, sending(b"{", more_body=True))

    async def __aenter__(self) -> "Attackers":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def innocent(app: Any, client: tuple[str, int] = ("10.0.0.0", 1)) -> int:
    """The status of a request whose body comes at once, from an address that attackers may share."""
    scope = request_to("/v1/predict", headers=[JSON_TYPE], client=client)
    return (await statuses_of(app, scope, sending(b'{"inputs": [{"text": "a"}]}')))[0]


def few_slow(monkeypatch: pytest.MonkeyPatch, slow_s: float, most: int, **limits: int) -> LimitsConfig:
    """Limits of a replica that waits for so many slow bodies."""
    monkeypatch.setattr(middleware, "SLOW_BODY_S", slow_s)
    monkeypatch.setattr(middleware, "MAX_SLOW_BODIES", most)
    return LimitsConfig(body_timeout_s=3600, **limits)


def sending_once(go: asyncio.Event) -> Callable[[], Awaitable[Any]]:
    """The channel of a client whose body comes when it is told."""

    async def receive() -> Any:
        await go.wait()
        return {"type": "http.request", "body": b"{}", "more_body": False}

    return receive


PATHS = ("/", "/v1/predict", "/v1/feedback", "/v1/chat/completions", "/v1/explain", "/nowhere")


@pytest.mark.parametrize("announced", [True, False], ids=["length", "chunked"])
@pytest.mark.parametrize("peers", [1, 50])
@pytest.mark.parametrize("path", PATHS)
async def test_stalled_bodies_hold_up_nobody(
    service: Any, monkeypatch: pytest.MonkeyPatch, path: str, peers: int, announced: bool
) -> None:
    """Promise: 1,000 clients that stop within their bodies fail no request, and take no replica out of rotation."""
    limits = few_slow(monkeypatch, 0.1, 20, max_slow_bodies_per_peer=5)
    app = create_api(service, ServeConfig(limits=limits, allowed_hosts=("testserver",)))
    async with Attackers(app) as attackers:
        attackers.attack(path, 1000, peers, announced)
        await asyncio.sleep(0)
        assert [await innocent(app) for _ in range(5)] == [200] * 5
        num_waited_for = 0 if path == "/" else 5 if peers == 1 else 20
        while len(attackers.statuses) < 1000 - num_waited_for:
            await asyncio.sleep(0.01)
        assert set(attackers.statuses) == {200 if path == "/" else 408}
        assert service.metrics.unread == num_waited_for
        assert await asyncio.gather(*(innocent(app) for _ in range(90))) == [200] * 90
        ready = request_to("/readyz", "GET")
        assert await statuses_of(app, ready, never) == [200]
    assert service.metrics.unread == 0


async def test_slow_bodies_are_awaited_while_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a slow body is read to its end, unless too many are slow at its address or in all."""
    limits = few_slow(monkeypatch, 0.01, 3, max_slow_bodies_per_peer=2)
    metrics = StubMetrics()
    go = asyncio.Event()
    limit = logged(BodyLimit(PlainTextResponse("read"), limits, metrics))

    def asked(peer: str) -> asyncio.Task[list[int]]:
        scope = request_to("/v1/predict", client=(peer, 1))
        return asyncio.create_task(statuses_of(limit, scope, sending_once(go)))

    waiting = [asked("a"), asked("a")]
    await asyncio.sleep(0.1)
    assert await asked("a") == [408]
    waiting.append(asked("b"))
    await asyncio.sleep(0.1)
    assert await asked("c") == [408]
    go.set()
    assert await asyncio.gather(*waiting) == [[200]] * 3
    assert metrics.statuses == [408, 408]
    assert metrics.unread == 0


async def test_busy_replica_blames_no_client_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a body that could not be read because the replica was busy is not slow."""
    limits = few_slow(monkeypatch, 0.1, 0)
    go = asyncio.Event()
    limit = BodyLimit(PlainTextResponse("read"), limits, StubMetrics())

    asked = asyncio.create_task(statuses_of(limit, request_to("/v1/predict"), sending_once(go)))
    for _ in range(5):
        await asyncio.sleep(0)
    time.sleep(0.3)  # the event loop is blocked, and the time of the body is over
    for _ in range(5):
        await asyncio.sleep(0)
    go.set()
    assert await asked == [200]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([b"9" * 5000], 413),
        ([b"0" * 5000], 200),
        ([b"9" * 5000, b"9" * 5000], 413),
        ([b"26", b"27"], 400),
        ([b"-1"], 400),
        ([b"+1"], 400),
        ([b"1e3"], 400),
        ([b"1_000"], 400),
        (["²".encode("latin-1")], 400),
        (["٥".encode()], 400),
        ([b""], 400),
        ([b" 27 "], 200),
    ],
    ids=lambda value: str(value)[:16],
)
async def test_odd_content_length_is_no_error_of_ours(service: Any, headers: list[bytes], status: int) -> None:
    """Promise: a `Content-Length` that is no number, or of thousands of digits, is a refusal and rings no alarm."""
    app = create_api(service, ServeConfig(allowed_hosts=("testserver",)))

    lengths = [(b"content-length", value) for value in headers]
    body = b'{"inputs": [{"text": "a"}]}'
    answered = await statuses_of(app, request_to("/v1/predict", headers=[*lengths, JSON_TYPE]), sending(body))
    page = await statuses_of(app, request_to("/", "GET", lengths), sending(body))
    assert (answered, page, service.metrics.num_failed) == ([status], [200], 0)


async def test_files_of_the_page_are_sent_in_turn(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: hundreds of downloads delay no other request, and one that stalls is given up."""
    monkeypatch.setattr(middleware, "DOWNLOAD_S", 0.2)
    transport = httpx.ASGITransport(app=logged(Downloads(held)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        files = [asyncio.create_task(client.get("/docs/files/a.js")) for _ in range(2)]
        other = asyncio.create_task(client.get("/v1/model"))
        while held.inside < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert held.inside == 2  # one file, and the other request
        done, _ = await asyncio.wait(files, return_when=asyncio.FIRST_COMPLETED)  # given up
        assert len(done) == 1
        held.go.set()
        assert (await other).status_code == 200
        await asyncio.gather(*files, return_exceptions=True)
    assert held.most == 2
