"""Files of a folder and of a bucket behave alike; of many creators one wins, and faults are named, not survived."""

import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from obstore import exceptions

from kcm.assets.manifest import sha256_of
from pipelines.store import files as module
from pipelines.store.files import Files, RangeFile, StorageError, normalised


def names(files: Files, above: str = "") -> list[str]:
    return sorted(stat.name for stat in files.list(above))


def test_files_are_written_read_listed_and_removed_alike(place: str, tmp_path: Path) -> None:
    files = Files.at(place)
    assert names(files) == []
    files.write("a/one", b"1")
    files.write("a/one", b"2")
    (tmp_path / "source").write_bytes(b"three")
    files.put("a/b c/ü", tmp_path / "source")
    assert files.read("a/one") == b"2"
    assert names(files) == ["a/b c/ü", "a/one"]
    assert names(files, "a/b c") == ["a/b c/ü"]
    assert names(files, "a/o") == []  # a folder's name, not a beginning of one
    files.get("a/b c/ü", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == b"three"
    assert files.sha256("a/b c/ü") == files.noted_sha256("a/b c/ü") == sha256_of(tmp_path / "source")
    files.delete(["a/one", "a/nothing"])
    assert names(files) == ["a/b c/ü"]


def test_a_file_that_is_not_there_is_told(place: str, tmp_path: Path) -> None:
    files = Files.at(place)
    looks: list[Callable[[], object]] = [
        lambda: files.read("x"),
        lambda: files.get("x", tmp_path / "y"),
        lambda: files.sha256("x"),
        lambda: files.open("x"),
        lambda: files.copy("x", "y"),
    ]
    for look in looks:
        with pytest.raises(FileNotFoundError):
            look()


def test_files_below_a_name_are_the_same_files(place: str) -> None:
    files = Files.at(place)
    files.below("a").below("b").write("x", b"1")
    assert files.read("a/b/x") == b"1"
    assert pickle.loads(pickle.dumps(files.below("a"))).read("b/x") == b"1"


def test_of_sixteen_creators_one_succeeds_every_time(place: str) -> None:
    files = Files.at(place)
    for number in range(3):
        ready = threading.Barrier(16)

        def create(writer: int, name: str = f"key/{number}", ready=ready) -> bool:
            ready.wait()
            return files.create(name, str(writer).encode())

        with ThreadPoolExecutor(16) as threads:
            won = [writer for writer, is_first in enumerate(threads.map(create, range(16))) if is_first]
        assert [str(writer).encode() for writer in won] == [files.read(f"key/{number}")]


def test_repeated_create_recognises_its_own_object(node_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a creation whose answer was lost is known for ours when it is sent again."""
    files, put = Files(node_bucket), module.obstore.put
    lost = iter([True])

    def broken(*args: object, **options: object) -> object:
        result = put(*args, **options)
        if next(lost, False):
            raise exceptions.GenericError("connection closed before message completed")
        return result

    monkeypatch.setattr(module.obstore, "put", broken)
    assert files.create("x", b"same")
    assert not files.create("x", b"same")  # another creator with the same content has not won


def test_a_download_is_held_against_what_was_uploaded(
    node_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(node_bucket)
    (tmp_path / "source").write_bytes(b"1")
    files.put("x", tmp_path / "source")
    monkeypatch.setattr(module, "sha256_of", lambda path: "0" * 64)  # as of bytes that changed on their way
    files.put("y", tmp_path / "source")
    files.get("x", tmp_path / "target")
    with pytest.raises(StorageError, match="not what was written"):
        files.get("y", tmp_path / "target")


@pytest.mark.parametrize("most", [0, module.MOST_COPIED])
def test_a_copy_keeps_what_was_noted_however_large_the_file_is(
    node_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(module, "MOST_COPIED", most)
    if most:
        monkeypatch.setattr(Files, "get", None)  # nothing comes here
    files = Files(node_bucket)
    (tmp_path / "source").write_bytes(b"1")
    files.put("x", tmp_path / "source")
    files.copy("x", "a/ü")
    assert files.read("a/ü") == b"1"
    assert files.noted_sha256("a/ü") == files.noted_sha256("x")


def test_a_conflict_of_two_puts_is_tried_again(node_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files, put = Files(node_bucket), module.obstore.put
    conflicts = iter(range(2))

    def conflicting(*args: object, **options: object) -> object:
        if next(conflicts, None) is not None:
            raise exceptions.GenericError(
                "Server returned non-2xx status code: 409 Conflict: ConditionalRequestConflict"
            )
        return put(*args, **options)

    monkeypatch.setattr(module.obstore, "put", conflicting)
    assert files.create("x", b"1")
    assert next(conflicts, None) is None


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("non-2xx status code: 400 Bad Request: <Code>ExpiredToken</Code>", "credentials have expired"),
        ("non-2xx status code: 503 Service Unavailable: AKIAABCDEFGHIJKLMNOP", "503 Service Unavailable"),
    ],
)
def test_refusal_or_outage_hides_what_the_server_said(
    node_bucket: str, monkeypatch: pytest.MonkeyPatch, answer: str, said: str
) -> None:
    """Promise: a refusal or an outage is named without what the server said of keys."""

    def refused(*args: object, **options: object) -> object:
        raise exceptions.GenericError(answer)

    monkeypatch.setattr(module.obstore, "put", refused)
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    with pytest.raises(StorageError, match=said) as raised:
        Files(node_bucket).write("x", b"1")
    assert "finished work is kept" in str(raised.value)
    assert "AKIA" not in str(raised.value)


def test_a_bucket_that_does_not_exist_is_named(node_bucket: str) -> None:
    with pytest.raises(StorageError, match=r"the bucket does not exist \(s3://nowhere-at-all/x"):
        Files("s3://nowhere-at-all").write("x", b"1")


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("s3://bucket/a/", "s3://bucket/a"),
        ("gs://bucket", "gs://bucket"),
        ("file:///a/b%20c", "/a/b c"),
        ("/a/b", "/a/b"),
        ("a", str(Path.cwd() / "a")),
    ],
)
def test_a_storage_path_is_written_in_one_way(place: str, expected: str) -> None:
    assert normalised(place) == expected


@pytest.mark.parametrize("place", ["http://host/x", "s3://", "s3://key:secret@bucket/x", "file://host/x"])
def test_what_is_no_storage_path_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="name a folder that all nodes see"):
        normalised(place)


def test_a_file_that_is_being_written_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, link, listed = Files.at(tmp_path / "here"), os.link, list[list[str]]()

    def linked(draft: Path, target: Path) -> None:
        assert draft.exists()
        listed.append(names(files))
        link(draft, target)

    monkeypatch.setattr(os, "link", linked)
    assert files.create("x", b"1")
    assert (listed, names(files)) == ([[]], ["x"])


def test_only_the_ranges_of_a_file_that_are_read_are_fetched(node_bucket: str) -> None:
    files = Files(node_bucket)
    files.write("x", b"0123456789")
    with files.open("x") as file:
        assert isinstance(file, RangeFile)
        assert file.read(0) == b""
        file.seek(-4, os.SEEK_END)
        assert (file.read(2), file.tell()) == (b"67", 8)
        assert file.read(10) == b"89"
        assert file.read(10) == b""
