"""What travels to a cluster, and the lines of Ray's own that send it there."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.commands.submit import CONFIG, pack
from kcm.config import load_config
from pipelines.config import RunConfig

REVIEWS = Path(__file__).parents[3] / "jobs" / "configs" / "reviews.yaml"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(RunConfig, REVIEWS, [f"storage_path={tmp_path}", "train.num_epochs=7", "seed=3"])


def test_only_packages_and_whole_configuration_travel(config: RunConfig, tmp_path: Path) -> None:
    """Promise: the packages and the whole configuration travel and nothing else."""
    pack(tmp_path, config)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, "jobs", "kcm", "pipelines"]
    assert load_config(RunConfig, tmp_path / CONFIG) == config
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 3 * 2**20
    assert not list(tmp_path.rglob("__pycache__"))


def test_the_printed_lines_submit_and_look_after_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first line runs what was packed; the other lines are comments to a shell."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    words = ["submit", str(REVIEWS), "--until", "train", "--address", "http://head:8265"]
    shown = CliRunner().invoke(app, [*words, "--json", str(tmp_path / "out.json")])
    assert shown.exit_code == 0, shown.stderr
    job = json.loads((tmp_path / "out.json").read_text())
    assert {path.name for path in Path(job["working_dir"]).iterdir()} == {CONFIG, "jobs", "kcm", "pipelines"}
    name, place = job["submission_id"], ["--address", "http://head:8265"]
    assert name.startswith("reviews-")
    first, *others = shown.stdout.splitlines()
    submitted, _, entrypoint = first.partition(" -- ")
    folder = ["--working-dir", job["working_dir"]]
    assert shlex.split(submitted) == ["ray", "job", "submit", *place, "--submission-id", name, *folder]
    assert entrypoint == f"python -m jobs.cli run {CONFIG} --until train"
    assert others == [
        f"# ray job {verb} --address http://head:8265 {name}" for verb in ("status", "logs --follow", "stop")
    ]
