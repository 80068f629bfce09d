"""What nodes say of themselves, and the one line about those that cannot work together."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from kcm.errors import ConfigError
from pipelines import nodes
from pipelines.nodes import (
    NodeReport,
    node_reports,
    require_alike,
    require_service,
    require_shared,
    versions_here,
)
from pipelines.store.files import Files
from tests.ports import free_port

REPORT = NodeReport("w1", versions_here(), 0.0, 10.0, None, {})


def test_node_uses_the_storage_like_the_driver_and_cleans_up(place: str) -> None:
    """Promise: a node uses the storage as the driver does and leaves nothing."""
    files = Files.at(place)
    (report,) = node_reports(files)
    assert report.storage_fault is None
    assert abs(report.skew_s) < 30
    assert report.versions == versions_here()
    assert list(files.list()) == []


def test_a_node_with_a_folder_of_its_own_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = Files.at(tmp_path / "here"), Files.at(tmp_path / "there")
    elsewhere = nodes._report
    monkeypatch.setattr(nodes, "_report", lambda storage, witness: elsewhere(there, witness))
    with pytest.raises(ConfigError, match=r"not every node can use .*/here: .* does not see the file that the driver"):
        require_shared(node_reports(here), here)


def test_a_storage_without_conditional_puts_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(self: Files, name: str, content: bytes) -> bool:
        self.write(name, content)
        return True

    monkeypatch.setattr(Files, "create", overwrite)
    files = Files.at(tmp_path)
    with pytest.raises(ConfigError, match=r"created a file that existed.*conditional puts"):
        require_shared(node_reports(files), files)


def test_nodes_of_other_versions_are_named_with_both_versions() -> None:
    here = versions_here()
    older = replace(REPORT, name="w2", versions=here | {"kcm-cascade": "0.0.9"})
    with pytest.raises(ConfigError, match=rf"w2 has kcm-cascade 0\.0\.9, not {here['kcm-cascade']}.*one image"):
        require_alike([REPORT, older])
    assert f"ray {ray.__version__}" in require_alike([REPORT])


def test_different_nodes_and_a_silent_redis_are_named() -> None:
    """Promise: nodes that would serve otherwise than the rest and a silent redis are named."""
    head = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_REDIS_ADDRESS": f"127.0.0.1:{free_port()}"}
    behind = replace(REPORT, switches={"RAY_SERVE_ENABLE_HA_PROXY": "1"})
    assert require_service([REPORT]) == "Ray's own proxy on each node; no Redis: a service ends with the head"
    assert require_service([behind, behind]).startswith("HAProxy on each node")
    with pytest.raises(ConfigError, match=r"RAY_SERVE_ENABLE_HA_PROXY differs: w2 1, w1 not set"):
        require_service([replace(behind, name="w2"), REPORT])
    with pytest.raises(
        ConfigError, match=rf"Redis, with the head's state, does not answer: .* \({head['RAY_REDIS_ADDRESS']}\)"
    ):
        require_service([replace(REPORT, switches=head), behind])
    with socket.create_server(("127.0.0.1", 0)) as redis:
        address = f"127.0.0.1:{redis.getsockname()[1]}"
        for written in (address, f"redis://{address}", f"rediss://{address}", f"{address},127.0.0.1:1"):
            there = replace(REPORT, switches={"RAY_REDIS_ADDRESS": written})
            assert require_service([there]).endswith("the head's state is in Redis")
