"""One writer of a version wins, whatever the others do, and nobody reads half a value."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kcm.certification.ledger import look_delta
from kcm.errors import ArtefactError
from pipelines.store.files import Files
from pipelines.store.records import KEEP, Control, StoredLedger, Versioned


def test_first_creation_wins_and_a_stale_swap_changes_nothing(place: str) -> None:
    """Promise: the first creation counts and a swap of what was read before another changes nothing."""
    control = Control(Files.at(place))
    assert not control.swap("champion/app", 3, b"four")
    assert control.get("champion/app") is None
    assert control.create("champion/app", b"one")
    assert not control.create("champion/app", b"two")
    assert control.get("champion/app") == Versioned(1, b"one")
    assert control.swap("champion/app", 1, b"two")
    assert not control.swap("champion/app", 1, b"three")
    assert control.get("champion/app") == Versioned(2, b"two")
    assert control.history("champion/app") == [Versioned(1, b"one"), Versioned(2, b"two")]


def test_a_pruned_key_keeps_its_value_and_goes_on_counting(place: str) -> None:
    control = Control(Files.at(place))
    for version in range(KEEP + 5):
        assert control.swap("lease", version, str(version).encode())
    control.prune("lease")
    assert len(control.history("lease")) == KEEP
    assert control.get("lease") == Versioned(KEEP + 5, str(KEEP + 4).encode())
    assert not control.create("lease", b"anew")


def test_a_key_below_another_one_is_a_key_of_its_own(place: str) -> None:
    control = Control(Files.at(place))
    control.create("loop/app", b"one")
    control.create("loop/app/champion", b"two")
    assert control.get("loop/app") == Versioned(1, b"one")
    assert control.keys("loop") == ["loop/app", "loop/app/champion"]


def test_writer_that_slept_past_pruning_has_not_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a writer that slept until its version was pruned has not won."""
    control, others = Control(tmp_path), Control(tmp_path)
    control.create("lease", b"0")

    def late(files: Files, name: str, content: bytes) -> bool:
        monkeypatch.undo()
        for version in range(1, KEEP + 5):
            assert others.swap("lease", version, b"others")
        others.prune("lease")
        return files.create(name, content)

    monkeypatch.setattr(Files, "create", late)
    assert not control.swap("lease", 1, b"mine")
    assert {each.value for each in control.history("lease")} == {b"others"}


def add(root: Path, rounds: int) -> None:
    """Count up `rounds` times."""
    control = Control(root)
    for _ in range(rounds):
        while True:
            current = control.get("counter") or Versioned(0, b"0")
            if control.swap("counter", current.version, str(int(current.value) + 1).encode()):
                break


def test_no_increment_of_several_processes_is_lost(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")  # threads of obstore do not survive a fork
    workers = [context.Process(target=add, args=(tmp_path, 40)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert Control(tmp_path).get("counter") == Versioned(160, b"160")


def test_a_killed_writer_leaves_no_value_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    control = Control(tmp_path)
    control.create("champion/app", b"one")
    monkeypatch.setattr(os, "link", killed)
    with pytest.raises(KeyboardInterrupt):
        control.swap("champion/app", 1, b"two")
    assert control.get("champion/app") == Versioned(1, b"one")
    assert [path.name for path in (tmp_path / "champion" / "app").iterdir()] == ["000000000001"]


def test_a_file_system_without_hard_links_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(ArtefactError, match="Choose another storage_path"):
        Control(tmp_path).create("champion/app", b"one")


def test_a_value_is_on_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("fsync"), fsync(descriptor))[1])
    monkeypatch.setattr(os, "link", lambda *args: (order.append("link"), link(*args))[1])
    assert Control(tmp_path).create("champion/app", b"one")
    assert order == ["fsync", "link", "fsync"]


@pytest.mark.parametrize("num_purposes", [16, 4])
def test_sixteen_writers_take_each_look_once(place: str, num_purposes: int) -> None:
    """Promise: sixteen writers take a look for each purpose and none twice; other rows begin anew."""
    control = Control(Files.at(place))
    with ThreadPoolExecutor(16) as threads:
        for number in range(16):
            threads.submit(StoredLedger(control, "rows").look, 0.1, f"purpose {number % num_purposes}")
    looks = StoredLedger(control, "rows").looks()
    assert [look.number for look in looks] == list(range(1, num_purposes + 1))
    assert [look.spend for look in looks] == [look_delta(0.1, look.number) for look in looks]
    assert {look.digest for look in looks} == {f"purpose {number}" for number in range(num_purposes)}
    assert StoredLedger(control, "other rows").look(0.1, "purpose 0").number == 1


def test_a_missing_look_is_refused_and_not_waited_for(place: str) -> None:
    files = Files.at(place)
    ledger = StoredLedger(Control(files), "rows")
    for number in range(3):
        ledger.look(0.1, f"purpose {number}")
    files.delete(["ledger/rows/000000000002"])
    with pytest.raises(ArtefactError, match=r"missing.*ledger/rows.*Restore it"):
        ledger.look(0.1, "purpose 3")


def test_a_damaged_look_is_refused(place: str) -> None:
    control = Control(Files.at(place))
    control.create("ledger/rows", b"{")
    with pytest.raises(ArtefactError, match="ledger of looks is damaged"):
        StoredLedger(control, "rows").look(0.1, "reviews")
