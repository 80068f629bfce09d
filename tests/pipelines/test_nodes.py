"""What nodes say of themselves, and the one line about those that cannot work together."""

from dataclasses import replace
from pathlib import Path

import pytest

from kcm.errors import ConfigError
from pipelines import nodes
from pipelines.nodes import (
    NodeReport,
    node_reports,
    require_alike,
    require_shared,
    versions_here,
)
from pipelines.store.files import Files

REPORT = NodeReport("w1", versions_here(), None)


def test_node_uses_the_storage_like_the_driver_and_cleans_up(place: str) -> None:
    """Promise: a node uses the storage as the driver does and leaves nothing."""
    files = Files.at(place)
    (report,) = node_reports(files)
    assert report.storage_fault is None
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
    require_alike([REPORT])
