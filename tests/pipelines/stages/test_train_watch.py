"""The driver of a training shows how far the workers are, and says what they have to say, once."""

from __future__ import annotations

from pathlib import Path

from pipelines.stages.train import _Watch
from pipelines.training.worker import NOTES, PROGRESS, _note, _shower


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
