"""Assets of a bucket come to a node when they are needed, and only with the hashes that their manifest states."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kcm.assets.manifest import MANIFEST, write_manifest
from kcm.assets.resolve import assets_folder, resolve
from kcm.errors import AssetError


@pytest.fixture
def folder(put: Callable[[str, bytes], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This node's folder for assets of the bucket, in which there is one."""
    asset = tmp_path / "asset"
    (asset / "deep").mkdir(parents=True)
    (asset / "deep" / "model.safetensors").write_bytes(b"weights")
    write_manifest(asset, ["deep/model.safetensors"], {"name": "org/model"})
    for name in ("deep/model.safetensors", MANIFEST):
        uri = put(f"assets/org/model/{name}", (asset / name).read_bytes())
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "node"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", uri.partition("endpoint_override=")[2])
    return assets_folder("s3://rows/assets/")


def test_an_asset_is_fetched_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = resolve("org/model", folder)
    assert fetched == folder / "org" / "model"
    assert (fetched / "deep" / "model.safetensors").read_bytes() == b"weights"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert resolve("org/model", folder) == fetched
    assert sorted(path.name for path in folder.glob("org/*")) == [".model.lock", "model"]


def test_an_asset_with_another_hash_is_refused_and_not_left(put: Callable[[str, bytes], str], folder: Path) -> None:
    put("assets/org/model/deep/model.safetensors", b"others")
    with pytest.raises(AssetError, match=r"'org/model' is damaged \(s3://rows/assets/org/model\)"):
        resolve("org/model", folder)
    assert [path.name for path in folder.glob("org/*")] == [".model.lock"]


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside"])
def test_a_manifest_of_a_bucket_writes_nothing_elsewhere(
    put: Callable[[str, bytes], str], folder: Path, name: str
) -> None:
    put(f"assets/org/model/{MANIFEST}", json.dumps({"sha256": {name: "0" * 64}}).encode())
    with pytest.raises(AssetError, match="outside its folder"):
        resolve("org/model", folder)
