"""Promise: on a disk of 64 MB that fills, a run ends in one line, makes no champion, and goes on once there is room."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app
from pipelines.registry.champion import Pointer
from pipelines.store.artefact import ArtefactStore
from tests.full_disk import Disk
from tests.integration.pipeline.test_run import CONFIG, SMALL
from tools.assets import fetch
from tools.catalog import ASSETS

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]


def kcm_run(storage: Path, assets_dir: Path) -> Result:
    values = SMALL | {"storage_path": storage, "assets_path": assets_dir, "tasks.salt": 4}
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    return CliRunner().invoke(app, ["run", str(CONFIG), *words])


@pytest.mark.slow
def test_full_disk_ends_in_one_line_and_the_run_resumes(disk: Disk, assets_dir: Path) -> None:
    """Promise: a run on a disk that fills ends in one line and goes on once there is room."""
    for name in ASSETS:
        fetch(name, assets_dir)
    storage = disk.folder / "storage"
    storage.mkdir()
    for free in (0, 1, 3, 5, 7, 9):  # MiB, until a stage is done whose work is kept
        disk.fill(free << 20)
        ended = kcm_run(storage, assets_dir)
        assert ended.exit_code == 2, ended.output
        assert ended.stderr.splitlines()[-1].startswith(f"error: the disk is full ({storage}"), ended.stderr
        assert "Traceback" not in ended.stderr
        disk.clear()
        assert Pointer(ArtefactStore(storage).control, "reviews").current() is None
        if "features  done" in ended.stderr:
            break
    ended = kcm_run(storage, assets_dir)
    assert ended.exit_code == 0, ended.output
    assert "features  already there" in ended.stderr
    assert Pointer(ArtefactStore(storage).control, "reviews").current() is not None
