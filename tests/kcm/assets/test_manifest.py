"""A folder is intact while its files have the hashes that its manifest states."""

import json
import os

import pytest

from kcm.assets.manifest import MANIFEST, is_intact, read_manifest, sha256_of, weights_sha256, write_manifest


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of its own and one in a folder below."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "weights").write_bytes(b"abc")
    (tmp_path / "sub" / "config.json").write_bytes(b"{}")
    write_manifest(tmp_path, ["weights", "sub/config.json"], {"source": "packages"})
    return tmp_path


def test_sizes_and_hashes_are_written_beside_the_facts(folder):
    assert is_intact(folder)
    assert read_manifest(folder) == {
        "source": "packages",
        "bytes": {"weights": 3, "sub/config.json": 2},
        "sha256": {
            "weights": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "sub/config.json": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        },
    }


@pytest.mark.parametrize("content", [b"abd", b"ab", None], ids=["of the same size", "truncated", "missing"])
def test_a_changed_or_missing_file_is_noticed(folder, content):
    if content is None:
        (folder / "weights").unlink()
    else:
        (folder / "weights").write_bytes(content)
    assert not is_intact(folder)


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        "not JSON",
        "[]",
        json.dumps({"sha256": {}}),
        json.dumps({"sha256": {"weights\0": "0"}}),
    ],
)
def test_folder_without_stated_hashes_is_not_intact(folder, manifest):
    if manifest is None:
        (folder / MANIFEST).unlink()
    else:
        (folder / MANIFEST).write_text(manifest)
    assert not is_intact(folder)


def test_a_file_of_another_size_is_not_hashed(folder, monkeypatch):
    """Promise: a sparse file of 200 GB is noticed by its size."""
    with (folder / "weights").open("ab") as file:
        file.truncate(200 * 10**9)
    hashed = []
    monkeypatch.setattr("kcm.assets.manifest.sha256_of", hashed.append)
    assert not is_intact(folder)
    assert hashed == []


def test_a_file_that_was_written_since_is_read_again(tmp_path):
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    before = weights_sha256(file)
    file.write_bytes(b"abd")
    os.utime(file, ns=(1, 1))  # a clock that is set back hides no change
    assert weights_sha256(file) == sha256_of(file) != before
