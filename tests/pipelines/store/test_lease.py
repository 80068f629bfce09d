"""One writer at a time; the second learns who the first one is, and a dead one holds nothing up for long."""

import getpass
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kcm.errors import LockedError
from pipelines.store import lease as module
from pipelines.store.lease import holder_of, leased, refuse_while_held
from pipelines.store.records import Control

HOLDER = (
    "import sys, time\nfrom pathlib import Path\nfrom pipelines.store.records import Control\n"
    "from pipelines.store.lease import leased\n"
    "with leased(Control(Path(sys.argv[1])), 'run', 'it'):\n    print('held', flush=True)\n    time.sleep(600)\n"
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
    """The first renews its lock, so the second is refused with one line that names the first."""
    named = rf"the run is being written by process {holder.pid} of \S+ on \S+ since .* Wait for it to end"
    with pytest.raises(LockedError, match=named), leased(Control(tmp_path), "run", "the run"):
        pass
    with pytest.raises(LockedError, match=f"the storage is being cleaned by process {holder.pid}"):
        refuse_while_held(Control(tmp_path), "run", "the storage is being cleaned")


def test_a_killed_writer_holds_the_lock_for_its_time_limit(
    tmp_path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TTL_S", 0.5)
    holder.kill()
    holder.wait()
    assert holder_of(Control(tmp_path), ["run"]) is None
    with leased(Control(tmp_path), "run", "the run") as lease:
        assert lease.held


def test_a_lock_that_was_given_back_is_free_at_once(tmp_path: Path) -> None:
    control = Control(tmp_path)
    for _ in range(3):
        with leased(control, "run", "the run"):
            assert control.get("run").value.startswith(b"process ")  # type: ignore[union-attr]
        assert holder_of(control, ["run", "absent"]) is None


def test_a_user_without_a_name_holds_a_lock_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a pod may run as a user that the system does not list."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nobody)
    with leased(Control(tmp_path), "run", "the run"):
        current = Control(tmp_path).get("run")
    assert current is not None
    assert current.value.startswith(f"process {os.getpid()} of {os.getuid()} on ".encode())


def test_one_who_waits_gets_the_lock_once_it_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control, looks = Control(tmp_path), iter(range(100))
    assert control.swap("run", 0, b"process 1")

    def others(_: float) -> None:
        """Renew the lock twice, then give it back."""
        look = next(looks)
        assert control.swap("run", look + 1, b"process 1" if look < 2 else b"")

    monkeypatch.setattr(time, "sleep", others)
    with leased(control, "run", "the run", wait_s=600) as lease:
        assert lease.held
    assert next(looks) == 3


def test_holder_notices_a_lost_lock_and_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a holder whose lock was taken away notices and does not take it back."""
    monkeypatch.setattr(module, "TTL_S", 0.06)
    control = Control(tmp_path)
    with leased(control, "run", "the run") as first:
        while True:  # as a process does to which the holder has been silent
            current = control.get("run")
            assert current is not None
            if control.swap("run", current.version, b"another"):
                break
        deadline = time.monotonic() + 120
        while first.held and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not first.held
    newest = control.get("run")
    assert newest is not None
    assert newest.value == b"another"
