"""npm and apt-get: what they bring is pinned or recorded, and their errors are one line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.assets import ASSETS, Asset, fetch
from jobs.assets.packages import DebianPackage, NpmPackage
from kcm.errors import AssetError

Client = Callable[[str, str], None]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """`client(name, script)` puts a command of that name on the path, and no other command but the shell's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def offer(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return offer


def sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def test_npm_brings_the_pinned_archive_and_is_not_asked_again(client, tmp_path):
    client("npm", 'printf archive > "$4/tiny-1.0.0.tgz"')
    package = NpmPackage("tiny", "1.0.0", sha256("archive"))
    assert package.download(tmp_path, timeout=60).read_text() == "archive"
    client("npm", "exit 1")
    assert package.download(tmp_path, timeout=60).name == "tiny-1.0.0.tgz"


def test_another_archive_of_npm_is_refused(client, tmp_path):
    client("npm", 'printf tampered > "$4/tiny-1.0.0.tgz"')
    with pytest.raises(AssetError, match=f"npm brought no file with sha256 {sha256('archive')}"):
        NpmPackage("tiny", "1.0.0", sha256("archive")).download(tmp_path, timeout=60)


@pytest.mark.parametrize(
    ("package", "name", "stderr", "expected"),
    [
        (
            NpmPackage("tiny", "9.9.9", "0"),
            "npm",
            "npm error code ETARGET\nnpm error notarget No matching version found for tiny@9.9.9.\nnpm error In",
            r"npm: notarget No matching version found for tiny@9\.9\.9\. \(tiny\)",
        ),
        (
            DebianPackage("tiny", {}),
            "apt-get",
            "E: Unable to locate package tiny",
            "Unable to locate package tiny .*update",
        ),
    ],
)
def test_what_a_client_says_is_passed_on_without_its_noise(package, name, stderr, expected, client, tmp_path):
    client(name, f"echo '{stderr}' >&2; exit 100")
    with pytest.raises(AssetError, match=expected):
        package.download(tmp_path, timeout=60)


@pytest.mark.parametrize("package", [NpmPackage("tiny", "1.0.0", "0"), DebianPackage("tiny", {})])
def test_a_client_that_is_not_installed_is_named(package, client, tmp_path):
    with pytest.raises(AssetError, match=r"(npm|apt-get) is not installed on this machine"):
        package.download(tmp_path, timeout=60)


def test_a_client_that_hangs_is_left_behind(client, tmp_path):
    client("npm", "exec /bin/sleep 60")
    with pytest.raises(AssetError, match=r"npm took longer than 0\.2 s"):
        NpmPackage("tiny", "1.0.0", "0").download(tmp_path, timeout=0.2)


def test_a_known_version_of_debian_must_have_its_hash(client, tmp_path):
    client("apt-get", "printf tampered > tiny_1%3a2.0-1_all.deb")
    with pytest.raises(AssetError, match=r"version 1:2\.0-1 has sha256 .*, expected"):
        DebianPackage("tiny", {"1:2.0-1": sha256("archive")}).download(tmp_path, timeout=60)


def test_the_hash_of_an_unknown_version_is_recorded_and_held_against_the_next_fetch(client, monkeypatch, tmp_path):
    def unpack(packages, target):
        (target / "a.txt").write_bytes(packages[0].read_bytes())

    asset = Asset("tiny", ("a.txt",), (DebianPackage("tiny", {"1.0": sha256("old")}),), unpack)
    monkeypatch.setitem(ASSETS, "tiny", asset)
    client("apt-get", "printf new > tiny_2.0_all.deb")
    folder = fetch("tiny", tmp_path / "assets")
    assert json.loads((folder / "asset.json").read_text())["packages"] == {"tiny": sha256("new")}

    (folder / "a.txt").unlink()
    client("apt-get", "printf newer > tiny_3.0_all.deb")
    with pytest.raises(AssetError, match=f"{sha256('newer')}, but its first fetch recorded {sha256('new')}"):
        fetch("tiny", tmp_path / "assets")
    (folder / "asset.json").unlink()
    assert (fetch("tiny", tmp_path / "assets") / "a.txt").read_text() == "newer"
