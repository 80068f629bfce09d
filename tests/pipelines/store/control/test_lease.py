"""One writer at a time; the second learns who the first one is, and a dead one holds nothing up."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from kcm.errors import LockedError
from pipelines.store.control import lease as module
from pipelines.store.control.lease import Record, leased
from pipelines.store.control.records import Control
from pipelines.store.files import StorageError

HOLDER = (
    "import sys, time\nfrom pathlib import Path\nfrom pipelines.store.control.records import Control\n"
    "from pipelines.store.control.lease import leased\n"
    "with leased(Control(Path(sys.argv[1])), 'run', 'it'):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_writer_learns_who_the_first_is(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(LockedError, match=f"process {holder.pid} of"), leased(Control(tmp_path), "run", "the run"):
        pass


def test_a_killed_writer_leaves_the_lease_behind_free(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with leased(Control(tmp_path), "run", "the run") as lease:
        assert lease.epoch == 2


def test_a_lease_that_could_not_be_given_back_is_free_to_its_own_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where credentials expire: the record stays as it was, and says that this process holds the lease."""
    control, swap = Control(tmp_path), Control.swap

    def expired(*args: object) -> bool:
        monkeypatch.setattr(Control, "swap", swap)
        raise StorageError("the credentials have expired")

    with pytest.raises(StorageError), leased(control, "run", "the run"):
        monkeypatch.setattr(Control, "swap", expired)
    with pytest.raises(subprocess.CalledProcessError):  # another process of this node is told who holds it
        subprocess.run(
            [sys.executable, "-c", HOLDER, str(tmp_path)], check=True, stderr=subprocess.DEVNULL, timeout=240
        )
    with leased(control, "run", "the run") as lease:
        assert lease.epoch == 2
        with pytest.raises(LockedError), leased(Control(tmp_path), "run", "the run"):
            pass


def elsewhere(control: Control, epoch: int = 1) -> None:
    """A holder on another node, whose clock is an hour ahead, takes or renews the lease."""
    current = control.get("run")
    record = replace(Record.mine(epoch), host="another", renewed=time.time() + 3600)
    assert control.swap("run", current.version if current else 0, json.dumps(asdict(record)).encode())


def test_a_lease_that_a_holder_on_another_node_leaves_unrenewed_is_taken_whatever_its_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TTL_S", 0.2)
    control = Control(tmp_path)
    elsewhere(control)
    with leased(control, "run", "the run") as lease:
        assert lease.epoch == 2


def test_a_lease_that_a_holder_on_another_node_renews_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control, looks = Control(tmp_path), iter(range(100))
    elsewhere(control)
    monkeypatch.setattr(time, "sleep", lambda _: elsewhere(control) if next(looks) == 3 else None)
    with pytest.raises(LockedError, match="on another since"), leased(control, "run", "the run"):
        pass


def test_a_process_with_a_dead_holders_id_does_not_pass_for_it() -> None:
    mine = Record.mine(1)
    assert not mine.is_free
    assert replace(mine, started=mine.started - 100).is_free


def test_a_holder_whose_lease_was_taken_away_notices_and_does_not_take_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TTL_S", 0.06)
    control = Control(tmp_path)
    with leased(control, "run", "the run") as first:
        while True:  # as a node does to whose clock the holder has been silent
            current = control.get("run")
            assert current is not None
            if control.swap("run", current.version, b'{"epoch": 2}'):
                break
        deadline = time.monotonic() + 120
        while first.held and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not first.held
    newest = control.get("run")
    assert newest is not None
    assert newest.value == b'{"epoch": 2}'


def test_a_lease_is_renewed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TTL_S", 0.06)
    control = Control(tmp_path)
    with leased(control, "run", "the run"):
        first = control.get("run")
        deadline = time.monotonic() + 120
        while control.get("run") == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert control.get("run") != first
