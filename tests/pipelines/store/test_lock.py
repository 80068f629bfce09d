"""One writer at a time, and the second is told who the first one is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from kcm.errors import LockedError
from pipelines.store.lock import locked

HOLDER = (
    "import sys, time\nfrom pathlib import Path\nfrom pipelines.store.lock import locked\n"
    "with locked(Path(sys.argv[1]), 'it'):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_writer_is_told_who_the_first_is(tmp_path, holder) -> None:
    with pytest.raises(LockedError, match=f"process {holder.pid} of"), locked(tmp_path / "run", "the run"):
        pass


def test_a_killed_writer_leaves_the_lock_behind_free(tmp_path, holder) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "run", "the run", wait_s=5):
        pass


def test_a_lock_can_be_taken_again_after_an_error(tmp_path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "run", "the run"):
        raise ZeroDivisionError
    start = time.monotonic()
    with locked(tmp_path / "run", "the run"):
        assert time.monotonic() >= start
