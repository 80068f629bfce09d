"""The driver of a training shows how far the workers are, and says what they have to say, once."""

from __future__ import annotations

from pathlib import Path

from pipelines.training.driver import StorageMonitor
from pipelines.training.worker import NOTES, PROGRESS, progress_writer, write_note


def test_notes_of_workers_reach_the_person_once(tmp_path: Path) -> None:
    said: list[str] = []
    write_note(tmp_path / NOTES, "of an earlier run")
    monitor = StorageMonitor(tmp_path, said.append)
    assert monitor.progress() is None
    for line in ("a damaged checkpoint", "a damaged checkpoint", "another"):
        write_note(tmp_path / NOTES, line)
        monitor.progress()
    assert said == ["a damaged checkpoint", "another"]


def test_progress_is_what_rank_0_showed_last(tmp_path: Path) -> None:
    monitor = StorageMonitor(tmp_path, print)
    progress_writer(tmp_path / PROGRESS, total=50, workers=2)(20)
    assert monitor.progress() == (20, 50)
    (tmp_path / PROGRESS).write_text('{"steps": 3')  # torn
    assert monitor.progress() is None
