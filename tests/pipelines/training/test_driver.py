"""The driver of a training shows how far the workers are, and says what they have to say, once."""

from __future__ import annotations

from pathlib import Path

from pipelines.training.driver import StorageMonitor
from pipelines.training.worker import METRICS, NOTES, PROGRESS, progress_writer, write_note


def test_notes_of_workers_reach_the_person_once(tmp_path: Path) -> None:
    lines: list[str] = []
    write_note(tmp_path / NOTES, "of an earlier run")
    monitor = StorageMonitor(tmp_path, lines.append)
    assert monitor.progress() is None
    for line in ("a damaged checkpoint", "a damaged checkpoint", "another"):
        write_note(tmp_path / NOTES, line)
        monitor.progress()
    assert lines == ["a damaged checkpoint", "another"]


def test_progress_is_what_rank_0_showed_last(tmp_path: Path) -> None:
    monitor = StorageMonitor(tmp_path, print)
    progress_writer(tmp_path / PROGRESS, total=50, workers=2)(20)
    assert monitor.progress() == (20, 50)
    (tmp_path / PROGRESS).write_text('{"steps": 3')  # torn
    assert monitor.progress() is None


def test_metrics_of_workers_are_recorded_as_they_come(tmp_path: Path) -> None:
    found: list[object] = []
    write_note(tmp_path / METRICS, '{"step": 1}')  # of an attempt whose driver was killed
    monitor = StorageMonitor(tmp_path, print, found.append)
    for step in (2, 3):
        write_note(tmp_path / METRICS, f'{{"step": {step}}}')
        monitor.progress()
        monitor.progress()
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step"')  # not whole yet
    monitor.progress()
    assert found == [{"step": 1}, {"step": 2}, {"step": 3}]
