"""`kcm gc` cleans the storage that a path, a URI or a configuration names."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.commands.gc import storage_of
from kcm.errors import ConfigError
from pipelines.store.artefact import ArtefactStore
from tests.pipelines.store.test_garbage import build, refer


def kcm(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.stdout, done.stderr


def test_garbage_is_listed_and_removed_only_on_request(place: str) -> None:
    """Promise: what nothing refers to is listed and removed only when asked."""
    store = ArtefactStore(place)
    refer(store, "reviews", kept := build(store, "features", 0))
    forgotten = build(store, "features", 1)
    for arguments, left in ((["gc", place], 2), (["gc", place, "--delete"], 1)):
        code, said, _ = kcm(*arguments)
        assert (code, said) == (0, f"features/{forgotten.fingerprint}\n")
        assert len(store.homes()) == left
    assert store.homes() == [kept.home]


def test_folder_without_artefacts_is_refused(tmp_path: Path) -> None:
    """Promise: a folder without artefacts is refused and not made a storage."""
    code, _, stderr = kcm("gc", str(tmp_path / "typo"))
    assert code == 2
    assert "no artefacts here" in stderr
    assert not (tmp_path / "typo").exists()


def test_storage_comes_from_configuration_or_argument(tmp_path: Path) -> None:
    """Promise: the storage is that of the configuration or the one that is named."""
    file = tmp_path / "run.yaml"
    file.write_text(
        "{name: a, storage_path: s3://rows/a, tasks: {}, encoder: {model: e}, large: {adapter: recorded, path: l.csv},"
        " tracking: {uri: 'http://mlflow:5000'}, serve: {feedback: {url: 'postgresql+psycopg://log/kcm'}}}"
    )
    assert storage_of(str(file)) == "s3://rows/a"
    assert storage_of("gs://rows/b/") == "gs://rows/b"
    with pytest.raises(ConfigError, match="name a folder"):
        storage_of("ftp://rows/b")
