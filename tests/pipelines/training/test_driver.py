"""The driver of a training shows how far the workers are, and says what they have to say, once."""

from pathlib import Path
from typing import Any

import pytest

from kcm.config import parse_config
from kcm.errors import KcmError
from pipelines.cluster.config import ClusterConfig
from pipelines.store.files import Files
from pipelines.training.driver import StorageMonitor, useful_workers
from pipelines.training.worker import METRICS, NOTES, TrainerConfig, progress_writer, write_note


def test_notes_of_workers_reach_the_person_once(tmp_path: Path) -> None:
    files, lines = Files.at(tmp_path), list[str]()
    write_note(files, NOTES, "of an earlier run")
    monitor = StorageMonitor(files, lines.append)
    assert monitor.progress() is None
    for line in ("a damaged checkpoint", "a damaged checkpoint", "another"):
        write_note(files, NOTES, line)
        monitor.progress()
    assert lines == ["a damaged checkpoint", "another"]


def test_progress_is_what_rank_0_showed_last(tmp_path: Path) -> None:
    files = Files.at(tmp_path)
    monitor = StorageMonitor(files, print)
    show = progress_writer(files, total=50, workers=2, every_s=0)
    for steps in (20, 30):
        show(steps)
        assert monitor.progress() == (steps, 50)


@pytest.mark.parametrize("fault", [KcmError("MLflow failed"), OSError("stale file handle")])
def test_an_outage_of_mlflow_or_the_storage_stops_no_training(tmp_path: Path, fault: Exception) -> None:
    """Metrics that were not recorded raise once the workers are done, and are recorded by the next look."""
    files, found, is_up = Files.at(tmp_path), list[object](), False
    write_note(files, METRICS, '{"step": 1}')

    def record(line: object) -> None:
        if not is_up:
            raise fault
        found.append(line)

    monitor = StorageMonitor(files, print, record)
    monitor.progress()
    with pytest.raises(type(fault)):
        monitor.look()
    is_up = True
    monitor.look()
    assert found == [{"step": 1}]


def test_metrics_of_workers_are_recorded_as_they_come(tmp_path: Path) -> None:
    files, found = Files.at(tmp_path), list[object]()
    write_note(files, METRICS, '{"step": 1}')  # of an attempt whose driver was killed
    monitor = StorageMonitor(files, print, found.append)
    for step in (2, 3):
        write_note(files, METRICS, f'{{"step": {step}}}')
        monitor.progress()
        monitor.progress()
    assert found == [{"step": 1}, {"step": 2}, {"step": 3}]


@pytest.mark.parametrize(
    ("rows", "given", "taken"),
    [(64, 3, 1), (1024, 4, 2), (8192, 4, 4), (64, (2, 8), 2), (1536, (1, 8), (1, 3)), (64, (1, 8), 1)],
)
def test_small_steps_take_few_workers(rows: int, given: Any, taken: Any) -> None:
    values = {"collaborators": ("kcm", "linear"), "network": {"hidden": []}, "learner": {"name": "finetune"}}
    config = parse_config(TrainerConfig, values | {"train": {"batch_size": rows}, "distill": {}, "seed": 0})
    assert useful_workers(config, ClusterConfig(num_workers=given)) == taken
    assert useful_workers(config, ClusterConfig(num_workers=given, use_gpu=True)) == given
