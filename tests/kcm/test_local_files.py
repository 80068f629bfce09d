"""Promise: what has appeared under its name is on disk, and so is the name."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kcm.assets.manifest import sha256_of
from kcm.certification.ledger import Ledger, unit_hashes
from kcm.config import read_values
from kcm.errors import DataError
from kcm.inputs.location import Location
from kcm.inputs.tables import read_frame
from kcm.large.adapters.recorded import RecordedConfig
from kcm.local_files import replace_durably
from kcm.tasks.readers.files import FilesSource


def _synced(monkeypatch, target):
    """Inodes in the order in which they are written to disk, and whether `target` was there at that time."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append((os.fstat(handle).st_ino, target.exists())))
    return synced


def test_folder_is_on_disk_before_it_appears(tmp_path, monkeypatch):
    """Promise: a folder is on disk with all that it holds before it appears, and its name afterwards."""
    draft, target = tmp_path / "draft", tmp_path / "place" / "bundle"
    (draft / "inner").mkdir(parents=True)
    (draft / "inner" / "weights").write_text("w")
    target.parent.mkdir()
    before = {path.stat().st_ino for path in (draft, draft / "inner", draft / "inner" / "weights")}
    synced = _synced(monkeypatch, target)
    replace_durably(draft, target)
    assert set(synced[:-1]) == {(inode, False) for inode in before}
    assert synced[-1] == (target.parent.stat().st_ino, True)
    assert (target / "inner" / "weights").read_text() == "w"


def test_a_look_is_on_disk_with_its_name(tmp_path, monkeypatch):
    look = tmp_path / "looks" / "000000000001"
    synced = _synced(monkeypatch, look)
    Ledger(tmp_path).look(unit_hashes(["a"]), delta=0.1, digest="test", purpose="test")
    assert synced[-2:] == [(look.stat().st_ino, False), (look.parent.stat().st_ino, True)]


READERS = {
    "config": read_values,
    "digest": sha256_of,
    "stream": lambda path: Location.of(path).open(),
    "file": lambda path: Location.of(path).open_at(),
    "frame": lambda path: read_frame(path, (".csv",)),
    "source": lambda path: FilesSource(path=str(path)).build(path),
    "sources": lambda path: FilesSource(path=(str(path), str(path))).build(path),
    "answers": lambda path: RecordedConfig(path=str(path)).build(["a"], path).answer([]),
}


@pytest.mark.parametrize("reader", READERS)
def test_pipe_is_refused_by_every_reader(tmp_path: Path, reader: str) -> None:
    """Nobody writes to the pipe: whoever opened it would wait for ever."""
    os.mkfifo(tmp_path / "rows.csv")
    with pytest.raises(DataError, match=r"a pipe is not read \(.*rows\.csv\)\. Save its content to a file"):
        READERS[reader](tmp_path / "rows.csv")


def test_sockets_and_devices_are_refused(tmp_path: Path) -> None:
    """A link to a device is a device."""
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.csv"))
        for name, kind in (("zero.csv", "a device"), ("socket.csv", "a socket")):
            with pytest.raises(DataError, match=f"{kind} is not read"):
                read_frame(tmp_path / name, (".csv",))


@pytest.mark.parametrize("words", [["init", "rows.csv"], ["run", "rows.csv"]])
def test_commands_refuse_a_pipe(tmp_path: Path, words: list[str]) -> None:
    """The commands end by themselves, with the exit code of a wrong input."""
    os.mkfifo(tmp_path / "rows.csv")
    command = [sys.executable, "-m", "jobs.cli", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "a pipe is not read" in done.stderr) == (2, True), done.stderr
