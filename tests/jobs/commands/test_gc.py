"""`kcm gc` cleans the storage of a configuration."""

from pathlib import Path

from typer.testing import CliRunner

from jobs.cli import app
from pipelines.store.artefact import ArtefactStore
from tests.conftest import ROOT
from tests.pipelines.store.test_garbage import build, refer


def gc(place: object, *options: str) -> tuple[int, str, str]:
    servers = ("tracking.uri=http://mlflow:5000", "serve.feedback.url=postgresql+psycopg://log/kcm")
    words = [word for value in (f"storage_path={place}", *servers) for word in ("--set", value)]
    done = CliRunner().invoke(app, ["gc", str(ROOT / "jobs/configs/reviews.yaml"), *words, *options])
    return done.exit_code, done.stdout, done.stderr


def test_garbage_is_listed_and_removed_only_on_request(place: str) -> None:
    """Promise: what nothing refers to is listed and removed only when asked."""
    store = ArtefactStore(place)
    refer(store, "reviews", kept := build(store, "features", 0))
    forgotten = build(store, "features", 1)
    for options, left in (((), 2), (("--delete",), 1)):
        code, said, _ = gc(place, *options)
        assert (code, said) == (0, f"features/{forgotten.fingerprint}\n")
        assert len(store.homes()) == left
    assert store.homes() == [kept.home]


def test_folder_without_artefacts_is_refused(tmp_path: Path) -> None:
    """Promise: a folder without artefacts is refused and not made a storage."""
    code, _, stderr = gc(tmp_path / "typo")
    assert code == 2
    assert "no artefacts here" in stderr
    assert not (tmp_path / "typo").exists()
