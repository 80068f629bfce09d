"""What the pipelines take from Ray's private parts is there, does what it is used for, and is taken in one module."""

import re
from pathlib import Path

import pytest
from ray._private import ray_constants, services
from ray._raylet import get_authentication_mode

import jobs
import pipelines
from pipelines import _ray_private as private

OUTWARD = "192.0.2.7"


@pytest.mark.parametrize("enabled", [True, False])
def test_loopback_is_kept_within_the_block_alone(monkeypatch: pytest.MonkeyPatch, enabled: bool) -> None:
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", enabled)
    monkeypatch.setattr(services, "node_ip_address_from_perspective", lambda *_: OUTWARD, raising=True)
    monkeypatch.setattr(services.ray._private.worker, "_global_node", None)
    with private.loopback_kept():
        assert services.get_node_ip_address() == "127.0.0.1"
    assert ray_constants.ENABLE_RAY_CLUSTER is enabled
    assert services.get_node_ip_address() == (OUTWARD if enabled else "127.0.0.1")


def test_authentication_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    for mode in ("token", "disabled"):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        private.reread_authentication()
        modes.append(get_authentication_mode())
    monkeypatch.undo()
    private.reread_authentication()
    assert modes[0] != modes[1]


def test_no_other_module_reaches_into_ray() -> None:
    reaches = re.compile(r"\bray(\.\w+)*\._|from ray\S* import .*\b_|ray\.train\.v2|_internal\b")
    root = Path(pipelines.__file__).parent.parent
    users = {
        str(path.relative_to(root))
        for package in (pipelines, jobs)
        for path in Path(package.__file__).parent.rglob("*.py")
        if reaches.search(path.read_text("utf-8"))
    }
    assert users == {"pipelines/_ray_private.py"}
