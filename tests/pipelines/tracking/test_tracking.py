"""MLflow has what a run records, once; a call that fails is one line with the fix."""

import getpass
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock, patch

import pytest
from mlflow import MlflowClient
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from kcm.errors import KcmError
from pipelines.tracking.config import SQLITE, TrackingConfig
from pipelines.tracking.tracking import (
    Tracking,
    _without_runs,
    ensure_database,
    fetch_model,
    set_champion,
)
from tests.champions import alias_of
from tests.postgres import BACKENDS


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that fails as a proxy before MLflow would."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(503)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_failed_call_names_the_server_and_the_fix(mlflow: str) -> None:
    """A record that MLflow does not take stops the run: started again, it reuses what is finished."""
    tracking = Tracking(mlflow, "run", "0", Path())
    with pytest.raises(KcmError, match=rf"503 .*{mlflow}.* Start again once it answers: finished work is kept"):
        tracking.log_learning({"kcm": [[0.5]]}, ["a b"])


def test_a_model_is_missing_only_if_the_registry_says_so(mlflow: str, tmp_path: Path) -> None:
    with pytest.raises(KcmError, match=r"MLflow failed: .*503.*Start again once it answers"):
        fetch_model(mlflow, "reviews/1", tmp_path)
    with pytest.raises(KcmError, match=r"no registered model 'reviews/1'.*Run `kcm run` first"):
        fetch_model(TrackingConfig().uri_in(tmp_path), "reviews/1", tmp_path)


def test_an_error_of_a_store_of_reports_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of artefact stores raise errors of their own, which name neither MLflow nor a fix."""
    tracking = Tracking.open(TrackingConfig(), tmp_path, name="run", key="key")
    failing = Mock(side_effect=RuntimeError("could not connect to the endpoint"))
    monkeypatch.setattr(LocalArtifactRepository, "log_artifact", failing)
    with pytest.raises(KcmError, match=r"could not connect to the endpoint.*finished work is kept"):
        tracking.log({}, tmp_path / "report.html")


def test_an_error_of_our_own_is_not_called_mlflows(tmp_path: Path) -> None:
    """Promise: only what is raised while MLflow runs is reported as MLflow's failure."""
    tracking, bundle = Tracking.open(TrackingConfig(), tmp_path, name="run", key="key"), tmp_path / "bundle"
    bundle.mkdir()
    with pytest.raises(ZeroDivisionError):
        tracking.register("reviews", bundle, "f00", write_beside=lambda folder: str(1 / 0))


@pytest.fixture(params=BACKENDS)
def config(request: pytest.FixtureRequest) -> TrackingConfig:
    """Records in a file, or in a database server."""
    return TrackingConfig(uri=None if request.param == "sqlite" else request.getfixturevalue("postgres_url"))


def test_what_is_sent_twice_is_recorded_once(config: TrackingConfig, tmp_path: Path) -> None:
    """Promise: a run that is started again changes no record."""
    tracking = Tracking.open(config, tmp_path, name="run", key="key")
    client = tracking.client
    cut_off = client.create_run(tracking.experiment_id, tags={"kcm.key": "cut off"}).info.run_id
    for _ in range(2):
        tracking.log_learning({"kcm": [[0.9, None], [0.8, 0.7]]}, ["one", "two"])
        tracking.log_trial("kcm 0", "trial", {"gate": "margin"}, {"area": 0.7})
        tracking.log_trial("kcm 1", "cut off", {}, {"area": 0.1})
        tracking.finish()
    history = {each.step: each.value for each in client.get_metric_history(tracking.run_id, "kcm/accuracy/one")}
    assert history == {1: 0.9, 2: 0.8}
    assert client.get_run(tracking.run_id).data.metrics == {"kcm/accuracy/one": 0.8, "kcm/accuracy/two": 0.7}
    assert client.get_run(tracking.run_id).info.status == "FINISHED"
    (found,) = client.search_runs([tracking.experiment_id], f"tags.`mlflow.parentRunId` = '{tracking.run_id}'")
    assert (found.data.metrics, found.data.params, found.info.status) == ({"area": 0.7}, {"gate": "margin"}, "FINISHED")
    assert client.get_run(cut_off).data.metrics == {"area": 0.1}
    with pytest.raises(KcmError, match="finished work is kept"):
        set_champion(tracking.uri, "unknown", "1")

    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "bundle.json").write_text("{}")
    assert [tracking.register("reviews", bundle, "f00") for _ in range(2)] == ["1", "1"]
    set_champion(tracking.uri, "reviews", "1")
    assert alias_of(tracking.uri, "reviews") == "1"
    assert any((tmp_path / "mlflow-artifacts").rglob("bundle.json"))

    run, (model,) = client.get_run(tracking.run_id), client.search_logged_models([tracking.experiment_id])
    assert run.info.user_id == getpass.getuser()
    assert run.data.tags["mlflow.source.name"]
    assert (model.name, model.source_run_id, model.status) == ("bundle-f00", tracking.run_id, "READY")
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert client.get_model_version("reviews", "1").source == model.artifact_location


@pytest.mark.parametrize(
    ("end", "status"), [(None, "FINISHED"), (KcmError("refused"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_every_run_ends(end: BaseException | None, status: str, tmp_path: Path) -> None:
    """Promise: no run stays RUNNING, with its trials; a later start of its name ends a run that SIGKILL left."""
    killed = Tracking.open(TrackingConfig(), tmp_path, name="run", key="killed")
    elsewhere = Tracking.open(TrackingConfig(uri=killed.uri), tmp_path / "other", name="run", key="elsewhere")
    client = killed.client
    running = Tracking.running(TrackingConfig(), tmp_path, name="run", key="key", params={"seed": 0})
    with pytest.raises(type(end)) if end else nullcontext(), running as opened:
        assert client.get_run(opened.run_id).info.status == "RUNNING"
        if end:
            with patch.object(MlflowClient, "log_batch", side_effect=end):
                opened.log_trial("kcm 0", "trial", {}, {})
    states = {run.info.run_id: run.info.status for run in client.search_runs([killed.experiment_id])}
    assert states.pop(killed.run_id) == "KILLED"
    assert states.pop(elsewhere.run_id) == "RUNNING"
    assert set(states.values()) == {status}
    assert len(states) == (2 if end else 1)
    assert client.get_run(opened.run_id).data.params == {"seed": "0"}


def test_an_error_of_mlflow_does_not_hide_what_stopped_a_run(tmp_path: Path) -> None:
    running = Tracking.running(TrackingConfig(), tmp_path, name="run", key="key", params={})
    unreachable = patch.object(MlflowClient, "set_terminated", side_effect=RuntimeError("unreachable"))
    with pytest.raises(KcmError, match="refused"), running, unreachable:
        raise KcmError("refused")


def test_an_experiment_for_each_run_name(tmp_path: Path) -> None:
    """Promise: MLflow's page keeps runs of different names apart."""
    for name in ("reviews", "intents"):
        tracking = Tracking.open(TrackingConfig(), tmp_path, name=name, key=name)
        assert tracking.client.get_experiment(tracking.experiment_id).name == name


def test_sections_become_parameters_of_their_own_however_many(tmp_path: Path) -> None:
    many = {f"option {number}": number for number in range(250)}
    params = {"seed": 0, "train": {"learning_rate": 0.1, "deep": {"er": [1, 2]}}, "many": many}
    with Tracking.running(TrackingConfig(), tmp_path, name="run", key="key", params=params) as tracking:
        pass
    params = tracking.client.get_run(tracking.run_id).data.params
    assert params["train.learning_rate"] == "0.1"
    assert params["train.deep.er"] == "[1, 2]"
    assert len(params) == 250 + 3
    assert "train" not in params


def test_new_file_has_all_tables_and_an_existing_one_stays(tmp_path: Path) -> None:
    """Promise: a new file is there with all its tables and a found one stays."""
    uri = f"{SQLITE}{tmp_path}/new/mlflow.db"
    ensure_database(uri)
    client = MlflowClient(uri)
    made = client.create_experiment("mine")
    ensure_database(uri)
    assert client.get_experiment(made).name == "mine"
    assert client.search_registered_models() == []
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["mlflow.db"]


def test_what_dies_while_tables_are_made_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "cache"))
    _without_runs.cache_clear()
    dies = patch("pipelines.tracking.tracking.MlflowClient", side_effect=OSError("no space left"))
    with dies, pytest.raises(OSError, match="no space left"):
        ensure_database(f"{SQLITE}{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []


def test_tables_are_made_once_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later process copies the empty database from the cache folder, without MLflow's migrations."""
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "cache"))
    _without_runs.cache_clear()
    ensure_database(f"{SQLITE}{tmp_path}/first.db")
    _without_runs.cache_clear()  # as in a new process
    with patch("pipelines.tracking.tracking.MlflowClient", side_effect=AssertionError("migrated again")):
        ensure_database(f"{SQLITE}{tmp_path}/second.db")
    assert MlflowClient(f"{SQLITE}{tmp_path}/second.db").search_registered_models() == []
