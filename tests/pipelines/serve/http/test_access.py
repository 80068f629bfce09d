"""Who may call: the interface with names, keys and rate limits."""

import logging
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipelines.serve.breaker import RateLimit
from pipelines.serve.http.keys import Keys

BODY = {"inputs": [{"text": "a private text"}]}
SECRET = "secret-key-of-ann"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    file = tmp_path / "keys"
    file.write_text(f"ann {sha256(SECRET.encode()).hexdigest()}\nbob {sha256(b'bob').hexdigest()}\n")
    return Keys(file)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_only_a_valid_key_gets_an_answer(client_of: Callable[..., TestClient], keys: Keys, service: Any) -> None:
    client = client_of(keys=keys)
    assert client.post("/v1/predict", json=BODY, headers=bearer(SECRET)).status_code == 200
    wrong: list[dict[str, str]] = [{}, bearer(""), bearer("x"), {"Authorization": f"Basic {SECRET}"}]
    for headers in wrong:
        response = client.post("/v1/predict", json=BODY, headers=headers)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert len(service.seen) == 1


def test_every_path_needs_a_key_except_harmless_ones(client_of: Callable[..., TestClient], keys: Keys) -> None:
    """Promise: every path asks for a key but for those that tell nothing of the model."""
    client = client_of(keys=keys)
    for path in ("model", "model/report", "models", "feedback", "explain", "nowhere"):
        assert client.get(f"/v1/{path}").status_code == 401, path
    for path in (
        "",
        "page/main.js",
        "healthz",
        "readyz",
        "docs",
        "docs/files/swagger-ui.css",
        "openapi.json",
    ):
        assert client.get(f"/{path}").status_code == 200, path


def test_a_caller_that_asks_too_often_gets_retry_after(client_of: Callable[..., TestClient], keys: Keys) -> None:
    client = client_of(keys=keys, rate_limit=RateLimit(per_minute=2, clock=lambda: 0.0))
    responses = [client.post("/v1/predict", json=BODY, headers=bearer(SECRET)) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[-1].headers["retry-after"] == "30"
    assert client.post("/v1/predict", json=BODY, headers=bearer("bob")).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_log_line_has_caller_and_request_but_no_key_or_text(
    client_of: Callable[..., TestClient], keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise: a log line tells who asked what and when but neither key nor text."""
    with caplog.at_level(logging.DEBUG):
        client_of(keys=keys).post("/v1/predict", json=BODY, headers=bearer(SECRET) | {"X-Request-Id": "mine"})
        client_of(keys=keys).post("/v1/explain", json={"input": {"text": "a private text"}}, headers=bearer(SECRET))
        client_of(keys=keys).post("/v1/predict", json={"text": "a private text"}, headers=bearer("wrong-secret"))
    answered, explained, refused = [vars(record) for record in caplog.records if record.getMessage() == "request"]
    assert (answered["client_request_id"], answered["caller"], answered["status"]) == ("mine", "ann", 200)
    assert answered["request_id"] not in ("", "mine", explained["request_id"])
    assert (answered["path"], answered["model_version"], answered["routes"]) == ("/v1/predict", "3", ["small"])
    assert answered["seconds"] >= 0
    assert (explained["path"], explained["model_version"], explained["status"]) == ("/v1/explain", "3", 200)
    assert refused["status"] == 401
    written = " ".join(str(vars(record)) for record in caplog.records)
    assert "secret" not in written
    assert "private" not in written


def test_the_service_is_given_the_caller_of_a_request(
    client_of: Callable[..., TestClient], keys: Keys, service: Any
) -> None:
    label = {"request_id": "r", "labels": [{"label": "good"}]}
    for options, headers in (({"keys": keys}, bearer("bob")), ({}, {})):
        client_of(**options).post("/v1/predict", json=BODY, headers=headers)
        client_of(**options).post("/v1/feedback", json=label, headers=headers)
    assert [origin.caller for origin in service.origins] == ["bob", None]
    assert service.seen[2::4] == ["bob", None]


def test_health_checks_do_not_fill_the_log(
    client_of: Callable[..., TestClient], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="ray.serve"):
        client_of().get("/healthz")
    assert [record for record in caplog.records if record.name == "ray.serve"] == []


# -- by which name -----------------------------------------------------------------------------------------------------

EVERY_ROUTE = [
    *("/", "/page/main.js", "/docs", "/openapi.json", "/v1/model", "/v1/model/report", "/v1/models"),
    "/nowhere",
]
POSTS = ["/v1/predict", "/v1/explain", "/v1/feedback", "/v1/chat/completions"]


def test_a_page_whose_name_was_pointed_here_gets_nothing(client_of: Callable[..., TestClient], service: Any) -> None:
    """Promise: a browser that somebody else's name has led here (DNS rebinding) reaches no route, nor the page."""
    client = client_of()
    for path in EVERY_ROUTE + POSTS:
        method = "POST" if path in POSTS else "GET"
        response = client.request(method, path, json=BODY, headers={"Host": "evil.example:8000"})
        assert response.status_code == 421, path
        assert "serve.allowed_hosts" in response.json()["detail"]
    assert service.seen == []


def test_only_loopback_names_are_answered_in_any_spelling(
    client_of: Callable[..., TestClient],
) -> None:
    """Promise: it answers by the names of loopback and no other spelling comes through."""
    client, evil = client_of(), "evil.example"
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]"):
        assert client.get("/v1/model", headers={"Host": host}).status_code == 200, host
    for host in ("", f"localhost.{evil}", f"{evil}/localhost", f"127.0.0.1.{evil}", f"{evil}:localhost", "[::1"):
        assert client.get("/v1/model", headers={"Host": host}).status_code == 421, host


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        ("kcm.example.org", "kcm.example.org:443", 200),
        ("kcm.example.org", "a.kcm.example.org", 421),
        ("*.example.org", "kcm.example.org", 200),
        ("*.example.org", "badexample.org", 421),
        ("*", "anything", 200),
    ],
)
def test_other_names_are_the_configuration_s(
    client_of: Callable[..., TestClient], allowed: str, host: str, status: int
) -> None:
    client = client_of(allowed_hosts=(allowed,))
    assert client.get("/v1/model", headers={"Host": host}).status_code == status
    assert client.get("/v1/model", headers={"Host": "localhost"}).status_code == 200


def test_probes_come_by_any_address(client_of: Callable[..., TestClient]) -> None:
    """Promise: a cluster's probes and balancers, which ask by the address of a pod, learn whether it is well."""
    client = client_of()
    for path in ("/healthz", "/readyz"):
        assert client.get(path, headers={"Host": "10.1.2.3:8000"}).status_code == 200
