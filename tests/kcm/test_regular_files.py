"""A command that is given a pipe or a device ends with one line, and reads nothing of it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kcm.assets.manifest import sha256_of
from kcm.config import read_values
from kcm.errors import DataError
from kcm.inputs.location import Location
from kcm.inputs.tables import read_frame
from kcm.large.adapters.recorded import RecordedConfig
from kcm.tasks.readers.files import FilesSource

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
