"""Malformed bodies for every door: made by hand, and by what the interface's own document allows and forbids."""

from __future__ import annotations

import functools
import json
import random
import warnings
from typing import Any

VALID: dict[str, Any] = {
    "/v1/predict": {"inputs": [{"text": "What a film!"}, {"text": "It has its moments.", "task": "films"}]},
    "/v1/explain": {"input": {"text": "What a film!"}, "top": 3},
    "/v1/feedback": {"request_id": "mine", "labels": [{"item": 0, "label": "good", "text": "x", "task": "films"}]},
    "/v1/chat/completions": {"model": "kcm", "messages": [{"role": "user", "content": "<<<\na film\n>>>"}], "n": 1},
}
DOORS = list(VALID)

_DEEP: Any = functools.reduce(lambda inner, _: [inner], range(400), 1)
_ODD: list[Any] = [None, True, -1, 2**70, 1e400, float("nan"), "", " ", "\x00", "\ud800", "x" * 20_000]
_ODD += [[], [[]], {}, {"text": {}}, _DEEP, [{}] * 20_000, 10**4000, "<<<\n" * 5_000, {"\ud800": 1}]
_DAMAGE = [b"", b'"', b"[", b"{", b"\\", b"\xff", b"\x00", b"]" * 50, b"," * 50]


def malformed(path: str, draw: random.Random) -> bytes:
    """A body for this door with a value replaced, with its bytes damaged, or in an encoding that is not JSON's."""
    kind = draw.random()
    if kind < 0.05:
        return json.dumps(VALID[path]).encode(draw.choice(["utf-16", "utf-32", "utf-7", "cp500"]))
    if kind < 0.1:
        return (
            draw.choice(["[", '{"a":', '{"inputs":[', '{"messages":[{"content":[']) * draw.randint(1, 3000)
        ).encode()
    if kind < 0.6:
        return json.dumps(_replaced(VALID[path], draw)).encode("utf-8", "surrogatepass")
    content = bytearray(json.dumps(VALID[path]).encode())
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(content))
        content[start : start + draw.randint(0, 5)] = draw.choice(_DAMAGE)
    return bytes(content)


def _replaced(value: Any, draw: random.Random) -> Any:
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(list(value))
        others = {key: kept for key, kept in value.items() if key != name}
        return others | {name if draw.random() < 0.9 else "surplus": _replaced(value[name], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        position = draw.randrange(len(value))
        return [_replaced(each, draw) if index == position else each for index, each in enumerate(value)]
    return draw.choice(_ODD)


MAX_BYTES = 8 * 2**20


def schemathesis_bodies(document: dict[str, Any], number: int) -> dict[str, list[bytes]]:
    """At most so many bodies that the document allows or forbids, by door; at least one for each.

    Those of hundreds of megabytes are left out: they are refused at 4 MiB, and a client that is still sending then may
    find its connection closed before it has read the 413.
    """
    import schemathesis
    from schemathesis import GenerationMode

    schema = schemathesis.openapi.from_dict(document)
    found: dict[str, list[bytes]] = {}
    for path in DOORS:
        found[path] = [b"{}"]
        for mode in GenerationMode:
            cases = schema[path]["POST"].as_strategy(generation_mode=mode)
            found[path] += _drawn(cases, max(1, min(400, number // len(DOORS) // 2)))
        found[path] = [body for body in found[path] if len(body) <= MAX_BYTES]
    return found


def _drawn(cases: Any, number: int) -> list[bytes]:
    """The bodies of at most so many cases."""
    from hypothesis import HealthCheck, given, settings

    bodies: list[bytes] = []

    @settings(
        max_examples=number, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(case=cases)
    def gather(case: Any) -> None:
        bodies.append(case.body if isinstance(case.body, bytes) else json.dumps(case.body, default=str).encode())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gather()
    return bodies
