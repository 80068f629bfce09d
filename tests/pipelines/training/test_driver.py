"""The driver of a training shows how far the workers are, and starts no more of them than make it faster."""

from pathlib import Path
from typing import Any

import pytest

from kcm.config import parse_config
from pipelines.cluster.config import ClusterConfig
from pipelines.store.files import Files
from pipelines.training.driver import progress_reader, useful_workers
from pipelines.training.worker import TrainerConfig, progress_writer


def test_progress_is_what_rank_0_showed_last(tmp_path: Path) -> None:
    files = Files.at(tmp_path)
    read = progress_reader(files)
    assert read() is None
    show = progress_writer(files, total=50, workers=2, every_s=0)
    for steps in (20, 30):
        show(steps)
        assert read() == (steps, 50)


@pytest.mark.parametrize(
    ("rows", "given", "taken"),
    [(64, 3, 1), (1024, 4, 2), (8192, 4, 4), (64, (2, 8), 2), (1536, (1, 8), (1, 3)), (64, (1, 8), 1)],
)
def test_small_steps_take_few_workers(rows: int, given: Any, taken: Any) -> None:
    values = {"collaborators": ("kcm", "linear"), "network": {"hidden": []}, "learner": {"name": "finetune"}}
    config = parse_config(TrainerConfig, values | {"train": {"batch_size": rows}, "distill": {}, "seed": 0})
    assert useful_workers(config, ClusterConfig(num_workers=given)) == taken
    assert useful_workers(config, ClusterConfig(num_workers=given, gpus_per_worker=0.5)) == given
