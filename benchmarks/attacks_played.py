"""The attacks, a normal request of each attack's size, and the latency of other callers meanwhile."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from PIL import Image

from benchmarks.attacks_served import KEYS, MEASURED, Kind, Target
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.monitor import bounds

INNOCENT = {"inputs": [{"text": "What a film!"}]}
NUM_REPEATS = 3
SHORT, CHUNKED = "Content-Length: 100", "Transfer-Encoding: chunked"  # of which one byte is sent
HELD_ROUNDS = 15  # of requests while an attacker holds connections


@dataclass(frozen=True)
class Outcome:
    """The outcome of an attack: whether the promise held, a summary, and measured figures."""

    held: bool
    seen: str
    cpu_ms: float | None = None
    normal_cpu_ms: float | None = None


@dataclass(frozen=True)
class Attack:
    """One attack on a kind of HTTP replica. With `weighs` it is also played while all is quiet, to compare its CPU."""

    name: str
    kind: Kind
    play: Callable[[Client], Awaitable[Outcome]]
    weighs: bool = False


class Client:
    """A caller of the service."""

    def __init__(self, target: Target, http: httpx.AsyncClient) -> None:
        self.target, self._http = target, http

    async def post(self, path: str, body: Any, caller: str = "ann", **headers: str) -> httpx.Response:
        """The answer; a body that is bytes goes as it is. A connection that breaks counts as status 0."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        header_fields = {name.replace("_", "-"): value for name, value in headers.items()}
        all_headers = {"authorization": f"Bearer {KEYS[caller]}", "content-type": "application/json"} | header_fields
        try:
            return await self._http.post(f"{self.target.url}{path}", content=content, headers=all_headers)
        except httpx.HTTPError:
            return httpx.Response(0)

    async def get(self, path: str) -> httpx.Response:
        """The answer."""
        try:
            return await self._http.get(f"{self.target.url}{path}", headers={"authorization": f"Bearer {KEYS['ann']}"})
        except httpx.HTTPError:
            return httpx.Response(0)

    async def measured(self, begin: bool = False) -> dict[str, float]:
        """What the HTTP replica has suffered since a call that was to `begin`."""
        for _ in range(100):
            if (answer := await self.get(f"{MEASURED}?begin={begin}")).status_code == 200:
                return answer.json()
            await asyncio.sleep(0.1)  # a refused body closes its connection, possibly this one
        raise RuntimeError(f"the HTTP replica is not there any more: {answer.status_code}")

    async def cpu_ms(self, path: str, body: Any) -> tuple[float, int]:
        """CPU milliseconds of the replica for one such request, the median of a few, and the status of the last."""
        costs = []
        for _ in range(NUM_REPEATS):
            before = (await self.measured())["cpu_s"]
            status = (await self.post(path, body)).status_code
            costs.append(1000 * ((await self.measured())["cpu_s"] - before))
        return max(statistics.median(costs), 1.0), status  # the clock counts ten milliseconds at a time at worst

    async def compared(self, path: str, body: Any, normal: Any, normal_path: str = "") -> Outcome:
        """An attack by one request against a normal one: neither may be answered by a server's error."""
        normal_ms, normal_status = await self.cpu_ms(normal_path or path, normal)
        attack_ms, status = await self.cpu_ms(path, body)
        is_held = normal_status == 200 and 0 < status < 500 and attack_ms <= 10 * normal_ms
        return Outcome(is_held, f"{status}, normal {normal_status}", attack_ms, normal_ms)


def _text(length: int) -> str:
    return ("What a film, and how long it goes on! " * (length // 38 + 1))[:length]


def _chat(content: Any) -> dict[str, Any]:
    return {"model": "kcm", "messages": [{"role": "user", "content": content}]}


def _predict(size: int) -> dict[str, Any]:
    """A normal request of about so many bytes."""
    return {"inputs": [{"text": _text(9_900)} for _ in range(max(1, min(120, size // 10_000)))]}


def _picture(width: int, height: int, seed: int | None = None) -> str:
    """A picture in base64: with a seed a JPEG of about a photograph's size, otherwise a WebP of one colour."""
    stream = io.BytesIO()
    if seed is None:
        Image.new("RGB", (width, height), "white").save(stream, "WEBP", lossless=True)
    else:
        coarse = Image.effect_noise((max(1, width // 4), max(1, height // 4)), 40 + seed % 7).convert("RGB")
        coarse.resize((width, height)).save(stream, "JPEG", quality=20)
    return base64.b64encode(stream.getvalue()).decode()


def innocent(kind: Kind) -> dict[str, Any]:
    """What others ask an HTTP replica of this kind."""
    items: dict[Kind, dict[str, str]] = {"pictures": _item(_picture(60, 60, 1)), "audited": {"text": "agree"}}
    return {"inputs": [items.get(kind, {"text": "What a film!"})]}


async def marks(client: Client) -> Outcome:
    """Blocks of opening marks before a greedy search."""
    normal = _text(90_000) + "\n<<<\na film\n>>>\nLabel:"
    return await client.compared("/v1/chat/completions", _chat("<<<\n" * 25_000), _chat(normal))


def _item(image: str) -> dict[str, str]:
    """A picture with what the large model reads."""
    return {"image": image, "text": "a film"}


async def picture_bombs(client: Client) -> Outcome:
    """32 pictures of 20 million pixels each, in some hundred bytes."""
    bomb = {"inputs": [_item(_picture(5000, 4000 - number)) for number in range(32)]}
    normal = {"inputs": [_item(_picture(120, 100, seed)) for seed in range(8)]}
    return await client.compared("/v1/predict", bomb, normal)


async def largest_picture(client: Client) -> Outcome:
    """The most pixels that are allowed, in the fewest bytes, against a photograph of as many."""
    normal = {"inputs": [_item(_picture(5000, 4000, 1))]}
    return await client.compared("/v1/predict", {"inputs": [_item(_picture(5000, 4000))]}, normal)


async def scans(client: Client) -> Outcome:
    """A progressive JPEG with thousands of scans of a few bytes over all pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (2000, 2000), "white").save(stream, "JPEG", progressive=True)
    data = stream.getvalue()
    scan = data[data.rfind(b"\xff\xda") : -2]
    image = base64.b64encode(data[:-2] + scan * 5000 + data[-2:]).decode()
    return await client.compared("/v1/predict", {"inputs": [_item(image)]}, {"inputs": [_item(_picture(900, 900, 1))]})


async def one_unreadable(client: Client) -> Outcome:
    """One damaged picture among others: no dearer than the same without it."""
    pictures = [_item(_picture(300, 300, seed)) for seed in range(16)]
    damaged = base64.b64encode(base64.b64decode(pictures[0]["image"])[:-400]).decode()
    return await client.compared("/v1/predict", {"inputs": [*pictures[:15], _item(damaged)]}, {"inputs": pictures})


async def empty_parts(client: Client) -> Outcome:
    """0.6 MB of empty parts of a message."""
    return await client.compared("/v1/chat/completions", _chat([{}] * 150_000), _predict(600_000), "/v1/predict")


async def unknown_keys(client: Client) -> Outcome:
    """4 MB of keys that nobody knows."""
    surplus = {f"key{number}": 1 for number in range(200_000)}
    return await client.compared("/v1/predict", {"inputs": [{"text": "a"} | surplus]}, _predict(4_000_000))


async def deep_json(client: Client) -> Outcome:
    """A million open brackets."""
    return await client.compared("/v1/predict", b'{"inputs":' + b"[" * 1_000_000, _predict(1_000_000))


@dataclass
class Held:
    """Connections that an attacker holds: of each, the status that it got and whether it was closed."""

    statuses: Counter[str] = field(default_factory=Counter)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def hold(self, url: str, request: bytes, number: int) -> None:
        """Open so many, each of which sends this and then nothing."""
        address = urlsplit(url)

        async def one() -> None:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
                self.writers.append(writer)
                writer.write(request)
                self.statuses[(await reader.readline()).decode()[9:12] or "closed"] += 1

        self.tasks += [asyncio.create_task(one()) for _ in range(number)]
        while len(self.writers) < len(self.tasks):
            await asyncio.sleep(0.01)

    async def let_go(self) -> None:
        """Close all."""
        for task in self.tasks:
            task.cancel()
        for writer in self.writers:
            writer.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def _head(client: Client, line: str, *headers: str) -> bytes:
    """The head of a request, and the first byte of its body."""
    host, first = f"Host: {urlsplit(client.target.url).netloc}", "1\r\n{\r\n" if CHUNKED in headers else "{"
    return "\r\n".join((f"{line} HTTP/1.1", host, "Content-Type: application/json", *headers, "", first)).encode()


def holding(number: int, line: str, *headers: str, key: bool = False) -> Callable[[Client], Awaitable[Outcome]]:
    """So many clients that send a request's head and one byte of its body; the promise is checked meanwhile."""

    async def play(client: Client) -> Outcome:
        connections = Held()
        header_lines = (*headers, f"Authorization: Bearer {KEYS['ann']}") if key else headers
        await connections.hold(client.target.url, _head(client, line, *header_lines) if line else b"", number)
        statuses = Counter[int]()
        ready_counts = Counter[int]()
        for _ in range(HELD_ROUNDS):
            answers = await asyncio.gather(*(client.post("/v1/predict", INNOCENT, "eve") for _ in range(4)))
            statuses.update(answer.status_code for answer in answers)
            ready_counts[(await client.get("/readyz")).status_code] += 1
        waited_for = number - connections.statuses.total()
        await connections.let_go()
        summary = (
            f"asked meanwhile {dict(statuses)}, /readyz {dict(ready_counts)}; held "
            f"{dict(connections.statuses)}, open {waited_for}"
        )
        return Outcome(set(statuses) == set(ready_counts) == {200}, summary)

    return play


def endless(piece: bytes, number: int) -> Callable[[Client], Awaitable[Outcome]]:
    """A client without a key whose headers are so many pieces, without an end; the promise is that it is cut off."""

    async def play(client: Client) -> Outcome:
        address, num_sent, status = urlsplit(client.target.url), 0, "closed"
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        with suppress(OSError):
            writer.write(f"GET / HTTP/1.1\r\nHost: {address.netloc}\r\n".encode())
            while num_sent < number:
                writer.write(piece)
                await writer.drain()
                num_sent += 1
            status = (await asyncio.wait_for(reader.readline(), 60)).decode()[9:12]
        writer.close()
        return Outcome(num_sent < number or status == "431", f"{status} after {num_sent * len(piece):,} bytes")

    return play


async def silent_bodies(client: Client) -> Outcome:
    """40 clients that stop in the middle of their bodies: how long they keep a connection."""
    started, connections = time.perf_counter(), Held()
    head = _head(client, "POST /v1/predict", "Content-Length: 100000", f"Authorization: Bearer {KEYS['ann']}")
    await connections.hold(client.target.url, head, 40)
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*connections.tasks), 90)
    answered_s = time.perf_counter() - started
    await connections.let_go()
    in_time = answered_s < 2 * client.target.config.limits.body_timeout_s
    return Outcome(
        connections.statuses == {"408": 40} and in_time, f"{dict(connections.statuses)} within {answered_s:.0f} s"
    )


async def slow_readers(client: Client) -> Outcome:
    """300 clients that ask for the largest file and never read it."""
    return await holding(300, "GET /docs/files/swagger-ui-bundle.js", "Content-Length: 1")(client)


async def odd_lengths(client: Client) -> Outcome:
    """`Content-Length` of thousands of digits, negative, doubled: refused, and none is an error of the service."""
    statuses = []
    for value in ("9" * 5000, "-1", "1e3", "5\r\nContent-Length: 6"):
        for line in ("POST /v1/predict", "GET /"):
            connections = Held()
            key = f"Authorization: Bearer {KEYS['ann']}"
            await connections.hold(client.target.url, _head(client, line, f"Content-Length: {value}", key), 1)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*connections.tasks), 30)
            await connections.let_go()
            statuses += list(connections.statuses)
    return Outcome(all(status < "500" for status in statuses), f"{statuses}")


async def forbidden_headers(client: Client) -> Outcome:
    """A client that sets Ray Serve's own time-out: a millisecond must do nothing."""
    statuses = [
        (await client.post("/v1/predict", INNOCENT, x_request_timeout_seconds=value)).status_code
        for value in ("0.000001", "0", "-1", "x")
    ]
    response = await client.post("/v1/predict", INNOCENT, x_request_disconnect_disabled="1")
    return Outcome({*statuses, response.status_code} == {200}, f"{statuses}, {response.status_code}")


async def slow_question(client: Client) -> Outcome:
    """One question that the upstream never answers, among 60 that it answers immediately."""
    body = {"inputs": [{"text": "escalate stall"}]}
    slow = asyncio.create_task(client.post("/v1/predict", body))
    await asyncio.sleep(0.3)
    responses = await asyncio.gather(*(_route(client, f"escalate {number}") for number in range(60)))
    status = (await slow).status_code
    return Outcome(responses.count("large") == 60, f"of 60: {dict(Counter(responses))}, the slow one {status}")


async def deep_reply(client: Client) -> Outcome:
    """Upstream replies that are too deep, or too long when decompressed, among 10 others in the batch."""
    texts = ["escalate deep", "escalate bomb", *(f"escalate beside {number}" for number in range(10))]
    routes = await asyncio.gather(*(_route(client, text) for text in texts))
    return Outcome(routes[2:] == ["large"] * 10, f"{routes[2:].count('large')} of 10 answered beside {routes[:2]}")


async def many_callers(client: Client) -> Outcome:
    """50 callers with four bad requests each, among them what the upstream cannot answer; then another asks."""
    bad_bodies = [
        b"{",
        {"inputs": []},
        {"inputs": [{"text": "x", "label": 1}]},
        {"inputs": [{"text": "escalate off-list"}]},
    ]
    requests = [client.post("/v1/predict", body, f"caller{number}") for number in range(50) for body in bad_bodies]
    statuses = Counter(answer.status_code for answer in await asyncio.gather(*requests))
    routes = [await _route(client, f"escalate after {number}") for number in range(5)]
    held = all(0 < status < 500 for status in statuses) and routes == ["large"] * 5
    return Outcome(held, f"{dict(statuses)}, then {routes.count('large')} of 5 by the large model")


async def stalled_escalations(client: Client) -> Outcome:
    """50 concurrent questions that the upstream never answers, while another caller asks kept and escalated items."""
    stalled = [asyncio.create_task(_route(client, f"escalate stall {number}")) for number in range(50)]
    await asyncio.sleep(0.5)
    kept = [(await client.post("/v1/predict", INNOCENT, "eve")).status_code for _ in range(20)]
    asked = await client.post("/v1/predict", {"inputs": [{"text": "escalate now"}]}, "eve")
    routes = Counter(await asyncio.gather(*stalled))
    is_held = set(kept) == {200} and asked.status_code == 200 and set(routes) <= {"small_degraded", "429", "503", "504"}
    route = asked.json()["answers"][0]["route"] if asked.status_code == 200 else asked.status_code
    return Outcome(is_held, f"kept {kept.count(200)} of 20, escalated: {route}, stalled: {dict(routes)}")


async def silenced_monitor(client: Client) -> Outcome:
    """Every other audit is lost, and would disagree; then made-up ids bring labels that agree."""
    texts = [f"fail {number}" if number % 2 else f"agree {number}" for number in range(600)]
    for start in range(0, len(texts), 8):
        batch = texts[start : start + 8]
        await asyncio.gather(*(client.post("/v1/predict", {"inputs": [{"text": text}]}) for text in batch))
    accepted = 0
    for number in range(100):
        label = {"request_id": f"made-up-{number}", "labels": [{"item": 0, "label": "good"}]}
        accepted += (await client.post("/v1/feedback", label)).status_code == 200
    ends: dict[str, float] = {}
    for wait_s in (15, 30, 60):  # audits end some seconds later, on a busy machine later still
        await asyncio.sleep(wait_s)
        with closing(DecisionLog(str(client.target.config.feedback.url), 10.0)) as log:
            found = bounds(log.tallies("films/1"), None)
        if found.num_items:
            ends = dict(zip(("low", "high"), found.disagreement, strict=True))
            break
    # Half of these items disagree, and others send at most three times as many, which agree.
    is_held = accepted == 0 and ends.get("low", 1.0) <= 1 / 8 <= ends.get("high", 0.0)
    return Outcome(is_held, f"disagreement {ends}, {accepted} made-up labels taken")


async def _route(client: Client, text: str) -> str:
    """Who answered a text; the status where nobody did."""
    answer = await client.post("/v1/predict", {"inputs": [{"text": text}]})
    return str(answer.json()["answers"][0]["route"]) if answer.status_code == 200 else str(answer.status_code)


KEYS_OF: dict[Kind, str] = {"text": "a key", "no keys": "no keys"}
ATTACKS = (
    Attack("blocks of marks", "text", marks, weighs=True),
    Attack("32 picture bombs", "pictures", picture_bombs, weighs=True),
    Attack("one picture bomb within the budget", "pictures", largest_picture, weighs=True),
    Attack("a JPEG of 5,000 scans", "pictures", scans, weighs=True),
    Attack("one unreadable picture", "pictures", one_unreadable, weighs=True),
    Attack("0.6 MB of empty parts", "text", empty_parts, weighs=True),
    Attack("4 MB of unknown keys", "text", unknown_keys, weighs=True),
    Attack("deep JSON in a body", "text", deep_json, weighs=True),
    Attack("a header of 200 MiB", "text", endless(b"a" * 2**20, 200)),
    Attack("a header of 1 GiB", "text", endless(b"a" * 2**20, 2**10)),
    Attack("a million small headers", "text", endless(b"X-A: b\r\n" * 1000, 1000)),
    Attack("bodies that stop", "text", silent_bodies),
    *(
        Attack(f"{number} bodies that stop, {line}, {keys}", kind, holding(number, line, SHORT, key=keys == "a key"))
        for kind, keys in KEYS_OF.items()
        for number in (50, 110, 300, 1000)
        for line in ("POST /v1/predict", "GET /")
    ),
    Attack("300 chunked bodies that stop", "no keys", holding(300, "POST /v1/feedback", CHUNKED)),
    Attack("300 chats that stop", "no keys", holding(300, "POST /v1/chat/completions", SHORT)),
    Attack("1,000 idle connections", "text", holding(1000, "")),
    Attack("300 slow readers", "text", slow_readers),
    Attack("odd lengths", "text", odd_lengths),
    Attack("Ray Serve's own headers", "text", forbidden_headers),
    Attack("a question that stalls", "text", slow_question),
    Attack("deep and long replies", "text", deep_reply),
    Attack("50 callers with bad requests", "text", many_callers),
    Attack("50 questions that stall", "text", stalled_escalations),  # last: the breaker rests after it
    Attack("lost audits and made-up labels", "audited", silenced_monitor),
)
