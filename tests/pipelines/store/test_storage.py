"""A node's folder for a bucket: what is kept outlives it, and what is fetched is whole."""

import os
from pathlib import Path

import pytest

from kcm.assets.manifest import sha256_of
from pipelines.store.files import Files
from pipelines.store.storage import Storage


@pytest.fixture
def storage(node_bucket: str) -> Storage:
    return Storage.at(node_bucket)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_folder_is_its_own_storage_and_nothing_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage.at(tmp_path)
    path = write(storage.root / "a" / "b", "1")
    monkeypatch.setattr(Files, "put", None)
    monkeypatch.setattr(Files, "get", None)
    storage.keep(path)
    assert storage.fetch(path) == path
    assert (storage.is_remote, storage.names(tmp_path / "a")) == (False, ["b"])


def refuse(*names: object) -> None:
    raise PermissionError("no links here")


def test_a_storage_copies_links_and_opens_what_it_holds(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage.at(place)
    path = storage.root / "scratch" / "a b"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(range(256)) * 1000)
    sha256 = sha256_of(path)
    storage.hand_over(path)
    assert path.exists() is not storage.is_remote
    folder = storage.root / "attempt"
    storage.place({"ü": path}, folder)
    assert storage.is_remote or path.samefile(folder / "ü")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)  # as file systems without hard links do
        storage.place({"copied": path}, folder)
    assert {storage.files.noted_sha256(f"attempt/{name}") for name in ("ü", "copied")} == {sha256}


def test_what_was_never_kept_is_forgotten(storage: Storage) -> None:
    kept, _ = (write(storage.root / "scratch" / name, name) for name in ("kept", "lost"))
    storage.keep(kept)
    kept.unlink()
    storage.forget(storage.root / "scratch")
    assert list((storage.root / "scratch").iterdir()) == []
    assert storage.names(storage.root) == ["scratch/kept"]
