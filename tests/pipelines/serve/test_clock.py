"""Promise: a wall clock that jumps, forwards or back, changes no deadline, no limit and no answer."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pipelines.serve.breaker import Breaker, BreakerConfig, RateLimit
from pipelines.serve.http.keys import Keys

DAY_S = 86_400.0


@pytest.fixture
def jumping_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the wall clock finds it days away, now before and now after the last one."""
    real, jumps = time.time, itertools.cycle([30 * DAY_S, -30 * DAY_S, 0.0, 400 * DAY_S])
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))


@pytest.mark.usefixtures("jumping_clock")
def test_requests_keys_and_rates_are_as_ever(client_of: Callable[..., TestClient], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"ann {sha256(b'secret').hexdigest()}\n")
    client = client_of(keys=Keys(file), rate_limit=RateLimit(per_minute=6.0))
    headers = {"Authorization": "Bearer secret"}
    body = {"inputs": [{"text": "x"}]}
    responses = [client.post("/v1/predict", json=body, headers=headers) for _ in range(8)]
    assert [response.status_code for response in responses] == [200] * 6 + [429] * 2
    assert 1 <= int(responses[-1].headers["retry-after"]) <= 10


@pytest.mark.usefixtures("jumping_clock")
def test_a_breaker_rests_neither_longer_nor_shorter() -> None:
    short, long = Breaker(BreakerConfig(failures=1, rest_s=0.01)), Breaker(BreakerConfig(failures=1, rest_s=1000.0))
    for breaker in (short, long):
        call = breaker.admit()
        assert call is not None
        call.failed()
    time.sleep(0.02)
    assert (short.state, long.state) == ("half_open", "open")
