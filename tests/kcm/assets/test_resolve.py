"""From a model's name to its folder: local folders, fetched assets, and anything else from the hub."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from kcm.assets import ASSETS, resolve
from kcm.errors import AssetError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def test_a_folder_is_taken_as_it_is(tmp_path):
    assert resolve(str(tmp_path), tmp_path / "assets") == tmp_path


def test_a_known_asset_comes_from_the_assets_folder_while_it_is_what_was_fetched(tmp_path, monkeypatch):
    folder = tmp_path / MINILM
    for file in ASSETS[MINILM].files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"x")
    monkeypatch.setitem(ASSETS, MINILM, dataclasses.replace(ASSETS[MINILM], sha256={}))
    stated = dict.fromkeys(ASSETS[MINILM].files, hashlib.sha256(b"x").hexdigest())
    (folder / "asset.json").write_text(json.dumps({"sha256": stated}))
    assert resolve(MINILM, tmp_path) == folder
    (folder / "config.json").write_bytes(b"y")
    with pytest.raises(AssetError, match=r"is damaged .*kcm assets"):
        resolve(MINILM, tmp_path)


def test_an_asset_not_yet_fetched_names_the_command(tmp_path):
    with pytest.raises(AssetError, match="kcm assets"):
        resolve(MINILM, tmp_path)


@pytest.mark.parametrize("model", ["./no/such/folder", "/no/such/folder", "~/no/such/folder"])
def test_a_path_without_a_folder_does_not_reach_the_hub(model, hub, tmp_path):
    with pytest.raises(AssetError, match="no such model folder"):
        resolve(model, tmp_path)
    assert hub.requests == []


def test_something_that_is_no_id_is_refused(tmp_path):
    with pytest.raises(AssetError, match="neither a folder nor the id"):
        resolve("what is this?", tmp_path)


def test_an_asset_that_is_fetched_by_name_says_so(tmp_path):
    with pytest.raises(AssetError, match="kcm assets SmolLM2-135M-Instruct-GGUF`"):
        resolve("SmolLM2-135M-Instruct-GGUF", tmp_path)
