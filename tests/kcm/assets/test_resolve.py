"""From a model's name to its folder: local folders, fetched assets, and anything else from the hub."""

import pytest

from kcm.assets.manifest import MANIFEST, write_manifest
from kcm.assets.resolve import resolve
from kcm.errors import AssetError

MODEL = "owner/tiny"


@pytest.fixture
def asset(tmp_path):
    """The folder of a fetched asset."""
    folder = tmp_path / MODEL
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b"x")
    write_manifest(folder, ["config.json"], {})
    return folder


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert resolve(str(tmp_path), tmp_path / "assets") == tmp_path


def test_intact_asset_comes_from_the_assets_folder(asset, hub, tmp_path):
    """Promise: an asset comes from the assets folder while it is what was fetched."""
    assert resolve(MODEL, tmp_path) == asset
    (asset / "config.json").write_bytes(b"y")
    with pytest.raises(AssetError, match=r"is damaged: .*Move the folder away and fetch the model again"):
        resolve(MODEL, tmp_path)
    assert hub.requests == []


def test_hub_does_not_replace_an_asset_without_manifest(asset, hub, tmp_path):
    (asset / MANIFEST).unlink()
    with pytest.raises(AssetError, match=r"is damaged: .*Move the folder away and fetch the model again"):
        resolve(MODEL, tmp_path)
    assert hub.requests == []


@pytest.mark.parametrize("model", ["owner/tiny", "SmolLM2-135M-Instruct-GGUF"])
def test_an_unknown_model_error_says_what_to_do(model, hub, tmp_path):
    hub.mood = "fail"
    expected = rf"model '{model}' is neither in the assets nor in the hub's cache, and the hub failed: .*{model}"
    with pytest.raises(AssetError, match=expected):
        resolve(model, tmp_path)
    assert hub.requests


@pytest.mark.parametrize("model", ["./no/such/folder", "/no/such/folder", "~/no/such/folder"])
def test_a_path_without_a_folder_does_not_reach_the_hub(model, hub, tmp_path):
    with pytest.raises(AssetError, match="no such model folder"):
        resolve(model, tmp_path)
    assert hub.requests == []
