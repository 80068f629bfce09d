"""The driver of a training shows how far the workers are, and says what they have to say, once."""

from __future__ import annotations

from pathlib import Path

from pipelines.stages.train import _Watch
from pipelines.training.worker import METRICS, NOTES, PROGRESS, _note, _shower


def test_notes_of_workers_reach_the_person_once(tmp_path: Path) -> None:
    said: list[str] = []
    _note(tmp_path / NOTES, "of an earlier run")
    watch = _Watch(tmp_path, said.append)
    assert watch.progress() is None
    for line in ("a damaged checkpoint", "a damaged checkpoint", "another"):
        _note(tmp_path / NOTES, line)
        watch.progress()
    assert said == ["a damaged checkpoint", "another"]


def test_progress_is_what_rank_0_showed_last(tmp_path: Path) -> None:
    watch = _Watch(tmp_path, print)
    _shower(tmp_path / PROGRESS, total=50, workers=2)(20)
    assert watch.progress() == (20, 50)
    (tmp_path / PROGRESS).write_text('{"steps": 3')  # torn
    assert watch.progress() is None


def test_metrics_of_workers_are_recorded_as_they_come(tmp_path: Path) -> None:
    found: list[object] = []
    _note(tmp_path / METRICS, '{"step": 1}')  # of an attempt whose driver was killed
    watch = _Watch(tmp_path, print, found.append)
    for step in (2, 3):
        _note(tmp_path / METRICS, f'{{"step": {step}}}')
        watch.progress()
        watch.progress()
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step"')  # not whole yet
    watch.progress()
    assert found == [{"step": 1}, {"step": 2}, {"step": 3}]
