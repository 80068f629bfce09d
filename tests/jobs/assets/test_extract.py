"""Archives that mean harm, and archives that are damaged, leave nothing outside the target and say what is wrong."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from jobs.assets import extract
from jobs.assets.extract import unpack_joined_zip, unpack_nested_tar, unpack_wheel
from kcm.errors import AssetError


def wheel_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar_of(entries: list[tarfile.TarInfo], content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return buffer.getvalue()


def entry_of(name: str, size: int, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.linkname = size, kind, link
    return entry


def sdist_of(path: Path, inner: bytes) -> Path:
    path.write_bytes(tar_of([entry_of("dist/inner.tar.gz", len(inner))], inner))
    return path


def test_only_the_files_asked_for_are_written(tmp_path):
    wheel = wheel_of(
        tmp_path / "x.whl", {"m/a.txt": b"a", "m/b.txt": b"b", "../evil.txt": b"evil", "/etc/evil": b"evil"}
    )
    unpack_wheel([wheel], tmp_path / "target", folder="m", files=["a.txt"])
    assert [path.name for path in (tmp_path / "target").rglob("*")] == ["a.txt"]
    assert not (tmp_path / "evil.txt").exists()


def test_a_link_in_a_zip_is_refused(tmp_path):
    member = zipfile.ZipInfo("m/a.txt")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(AssetError, match="not a regular file"):
        unpack_wheel([tmp_path / "x.whl"], tmp_path / "target", folder="m", files=["a.txt"])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE])
def test_a_link_or_folder_in_a_tar_is_refused(kind, tmp_path):
    inner = tar_of([entry_of("f/target.txt", 4), entry_of("f/a.txt", 0, kind, link="f/target.txt")], b"text")
    with pytest.raises(AssetError, match="not a regular file"):
        unpack_nested_tar(
            [sdist_of(tmp_path / "x.tar.gz", inner)],
            tmp_path / "target",
            inner="dist/inner.tar.gz",
            folder="f",
            files=["a.txt"],
        )


def test_a_file_of_a_tar_inside_a_tar_is_written(tmp_path):
    inner = tar_of([entry_of("f/a.txt", 4)], b"text")
    unpack_nested_tar(
        [sdist_of(tmp_path / "x.tar.gz", inner)],
        tmp_path / "target",
        inner="dist/inner.tar.gz",
        folder="f",
        files=["a.txt"],
    )
    assert (tmp_path / "target" / "a.txt").read_bytes() == b"text"


def test_a_bomb_stops_at_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(extract, "MAX_BYTES", 1_000_000)
    wheel = wheel_of(tmp_path / "x.whl", {"m/a.txt": bytes(5_000_000)})
    with pytest.raises(AssetError, match="more than 1000000 bytes"):
        unpack_wheel([wheel], tmp_path / "target", folder="m", files=["a.txt"])
    assert (tmp_path / "target" / "a.txt").stat().st_size <= 1_000_000


def test_a_missing_file_is_named(tmp_path):
    wheel = wheel_of(tmp_path / "x.whl", {"m/a.txt": b"a"})
    with pytest.raises(AssetError, match=r"no file 'm/b\.txt'"):
        unpack_wheel([wheel], tmp_path / "target", folder="m", files=["b.txt"])
    inner = tar_of([entry_of("f/a.txt", 4)], b"text")
    with pytest.raises(AssetError, match=r"no file 'f/b\.txt'"):
        unpack_nested_tar(
            [sdist_of(tmp_path / "x.tar.gz", inner)],
            tmp_path / "target",
            inner="dist/inner.tar.gz",
            folder="f",
            files=["b.txt"],
        )


def test_damaged_archives_are_named(tmp_path):
    wheel = wheel_of(tmp_path / "x.whl", {"m/a.txt": bytes(range(256)) * 100})
    content = bytearray(wheel.read_bytes())
    content[60:80] = bytes(20)
    wheel.write_bytes(content)
    with pytest.raises(AssetError, match=r"damaged archive.*x\.whl"):
        unpack_wheel([wheel], tmp_path / "target", folder="m", files=["a.txt"])
    sdist = sdist_of(tmp_path / "x.tar.gz", b"not a tar file")
    with pytest.raises(AssetError, match="damaged archive"):
        unpack_nested_tar([sdist], tmp_path / "target", inner="dist/inner.tar.gz", folder="f", files=["a.txt"])


def test_a_joined_zip_leaves_no_copy_of_itself_behind(tmp_path):
    whole = wheel_of(tmp_path / "whole.zip", {"m/a.txt": b"a" * 1000}).read_bytes()
    parts = [wheel_of(tmp_path / f"{i}.whl", {f"p/{i}": piece}) for i, piece in enumerate([whole[:50], whole[50:]])]
    unpack_joined_zip(parts, tmp_path / "target", parts=["p/0", "p/1"], folder="m", files=["a.txt"])
    assert (tmp_path / "target" / "a.txt").read_bytes() == b"a" * 1000
    with pytest.raises(AssetError, match="damaged archive"):
        unpack_joined_zip(parts[::-1], tmp_path / "target", parts=["p/1", "p/0"], folder="m", files=["a.txt"])
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == ["whole.zip"]
