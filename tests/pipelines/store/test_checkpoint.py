"""A resumed run takes the newest sound checkpoint of its own configuration, and says what it passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kcm.errors import ArtefactError
from pipelines.store.checkpoint import (
    MANIFEST,
    STATE,
    checkpoints,
    newest_checkpoint,
    prune_checkpoints,
    write_checkpoint,
)
from pipelines.store.files import Files


def write(root, steps: int, fingerprint: str = "mine") -> None:
    state = {"steps": steps, "weights": torch.full((3,), float(steps))}
    write_checkpoint(Files.at(root), f"attempt-1/checkpoint-{steps}", state, fingerprint=fingerprint, steps=steps)


def newest(root, lines: list[str] | None = None):
    return newest_checkpoint(Files.at(root), fingerprint="mine", say=(lines if lines is not None else []).append)


def test_the_checkpoint_with_the_most_steps_wins(tmp_path) -> None:
    for steps in (90, 1000, 200):
        write(tmp_path, steps)
    state = newest(tmp_path)
    assert state["steps"] == 1000
    assert state["weights"].tolist() == [1000.0] * 3


def test_without_checkpoints_a_run_starts_anew(tmp_path) -> None:
    assert newest(tmp_path) is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_a_list(path: Path) -> None:
    path.write_text("[]")


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *((STATE, damage) for damage in (cut, flip_a_bit, empty, Path.unlink)),
        *((MANIFEST, damage) for damage in (cut, empty, replace_by_a_list, Path.unlink)),
    ],
)
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path, file, damage) -> None:
    """Promise: whatever a crash left of the newest checkpoint, the run goes on from the one before, and says so."""
    write(tmp_path, 100)
    write(tmp_path, 200)
    folder = tmp_path / "attempt-1/checkpoint-200"
    damage(folder / file)
    lines: list[str] = []
    assert newest(tmp_path, lines)["steps"] == 100
    assert lines == [f"a damaged checkpoint is passed over ({folder})"]


def test_with_every_checkpoint_damaged_a_run_starts_anew_and_says_so(tmp_path) -> None:
    for steps in (100, 200):
        write(tmp_path, steps)
        cut(tmp_path / f"attempt-1/checkpoint-{steps}" / STATE)
    lines: list[str] = []
    assert newest(tmp_path, lines) is None
    assert len(lines) == 2


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path) -> None:
    write(tmp_path, 100, fingerprint="theirs")
    with pytest.raises(ArtefactError, match=r"theirs.*mine"):
        newest(tmp_path)


def test_checkpoints_are_listed_newest_first(tmp_path) -> None:
    for steps in (5, 500, 50):
        write(tmp_path, steps)
    found = checkpoints(Files.at(tmp_path))
    assert found == [f"attempt-1/checkpoint-{steps}" for steps in (500, 50, 5)]


def test_the_newest_two_sound_checkpoints_are_kept(tmp_path) -> None:
    for steps in (5, 50, 500, 5000):
        write(tmp_path, steps)
    cut(tmp_path / "attempt-1/checkpoint-500" / STATE)
    prune_checkpoints(Files.at(tmp_path))
    assert checkpoints(Files.at(tmp_path)) == ["attempt-1/checkpoint-5000", "attempt-1/checkpoint-50"]
