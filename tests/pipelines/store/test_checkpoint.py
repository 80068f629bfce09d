"""A resumed run takes the newest sound checkpoint of its own configuration, and says what it passed over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kcm.errors import ArtefactError
from pipelines.store import checkpoint
from pipelines.store.checkpoint import CHECKPOINTS, checkpoints, newest_checkpoint, write_checkpoint
from pipelines.store.files import Files


def write(root: Path, steps: int, fingerprint: str = "mine") -> Path:
    state = {"steps": steps, "weights": torch.full((3,), float(steps))}
    return root / CHECKPOINTS / write_checkpoint(Files.at(root), "one", state, fingerprint=fingerprint, steps=steps)


def newest(root: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest sound checkpoint, and what was said."""
    lines: list[str] = []
    return newest_checkpoint(Files.at(root), fingerprint="mine", say=lines.append), lines


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def test_checkpoint_with_most_steps_wins_or_run_starts_anew(tmp_path: Path) -> None:
    """Promise: the checkpoint with the most steps wins and without any a run starts anew."""
    assert newest(tmp_path) == (None, [])
    for steps in (90, 1000, 200):
        write(tmp_path, steps)
    state, _ = newest(tmp_path)
    assert state is not None
    assert (state["steps"], state["weights"].tolist()) == (1000, [1000.0] * 3)
    assert [int(name.partition("-")[0]) for name in checkpoints(Files.at(tmp_path))] == [1000, 200, 90]


@pytest.mark.parametrize("damage", [cut, flip_a_bit, lambda path: path.write_bytes(b"")])
def test_damaged_checkpoints_are_passed_over_and_the_run_is_told(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Promise: whatever a crash left of the newest checkpoint, the run goes on from the one before, and says so."""
    first, last = write(tmp_path, 100), write(tmp_path, 200)
    damage(last)
    state, lines = newest(tmp_path)
    assert state is not None
    assert (state["steps"], lines) == (100, [f"warning: skipped a damaged checkpoint ({last})"])
    damage(first)
    state, lines = newest(tmp_path)
    assert (state, len(lines)) == (None, 2)


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 100, fingerprint="theirs")
    with pytest.raises(ArtefactError, match=r"theirs.*mine"):
        newest(tmp_path)


def test_checkpoint_removed_after_listing_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two drivers may prune the same folder."""
    write(tmp_path, 100)
    gone = write(tmp_path, 200)
    listed = checkpoints(Files.at(tmp_path))
    gone.unlink()
    monkeypatch.setattr(checkpoint, "checkpoints", lambda files: listed)
    state, lines = newest(tmp_path)
    assert state is not None
    assert (state["steps"], lines) == (100, [])
