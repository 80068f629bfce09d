"""MLflow: an experiment per run name, a run per run of the pipeline, a nested run per trial, and the model registry.

A failed call stops the run with a KcmError. A restarted run reuses finished work and records everything again, so every
call here is idempotent.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric, Param, RunStatus, SourceType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE, MLFLOW_USER
from mlflow.utils.time import get_current_time_millis

from kcm.bundle.frozen_models import bundle_digest
from kcm.errors import MAKE_ROOM, KcmError, is_disk_full
from kcm.inputs.location import cache_folder
from kcm.local_files import create_durably
from kcm.redact import redacted
from kcm.report.reading import Numbers, flat
from kcm.user_folder import user_name
from pipelines.tracking.config import CHAMPION, DIGEST_TAG, SQLITE, TrackingConfig

KEY_TAG = "kcm.key"
FINGERPRINT_TAG = "kcm.fingerprint"
PARENT_TAG = "kcm.parent"  # digest of the bundle that a version continues
RUNNING, FINISHED, FAILED, KILLED = map(
    RunStatus.to_string, (RunStatus.RUNNING, RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED)
)
STORAGE_TAG = "kcm.storage"  # the storage path of a run: its lock tells which runs are running
_PARAMS_AT_ONCE = 100  # MLflow's limit


@dataclass(frozen=True)
class Tracking:
    """The record of one run of the pipeline."""

    uri: str
    run_id: str
    experiment_id: str
    storage_path: Path

    @classmethod
    @contextlib.contextmanager
    def running(
        cls, config: TrackingConfig, storage_path: Path, *, name: str, key: str, params: Mapping[str, Any]
    ) -> Iterator[Tracking]:
        """A run with its parameters within the block. Its end is FINISHED, FAILED, or KILLED by an interruption.

        The caller holds the lock of the run `name`: what still runs under this name was killed, and is marked so.
        Parameters of sections are named `section.name`.
        """
        tracking = cls.open(config, storage_path, name=name, key=key)
        try:
            tracking._end_running(KILLED)
            tracking._send(MlflowClient.update_run, RUNNING)
            tracking._send(_log, {"params": dict(flat(params)), "metrics": {}, "timestamp": 0})
            yield tracking
            tracking.finish()
        except BaseException as error:
            with contextlib.suppress(KcmError):  # raise the error that stopped the run, not a consequence of it
                tracking._end_running(FAILED if isinstance(error, Exception) else KILLED)
            raise

    @classmethod
    def open(cls, config: TrackingConfig, storage_path: Path, *, name: str, key: str) -> Tracking:
        """The run tagged with `key`, or a new run. So an interrupted run continues in the same record."""
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it logs every table that it creates
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # the errors that it logs are also raised
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 s; MLflow's own 7 make an outage 4 minutes
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # this folder holds only results
        uri = config.uri_in(storage_path)
        with answering(uri, hint="Check tracking.uri"):
            ensure_database(uri)
            client = MlflowClient(uri)
            experiment_id = _experiment(client, name, storage_path)
            runs = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
            tags = {KEY_TAG: key, STORAGE_TAG: str(storage_path)} | _origin()
            run = runs[0] if runs else client.create_run(experiment_id, run_name=name, tags=tags)
        return cls(uri, run.info.run_id, experiment_id, storage_path)

    @property
    def client(self) -> MlflowClient:
        """A client of the tracking store."""
        return MlflowClient(self.uri)

    def log(self, metrics: Mapping[str, float | None], report: Path) -> None:
        """Record metrics and the file of the report; metrics without a value are skipped."""
        self._send(_log, {"metrics": metrics, "timestamp": get_current_time_millis()})
        self._send(MlflowClient.log_artifact, str(report))

    def log_learning(self, accuracy: Mapping[str, Sequence[Sequence[float | None]]], tasks: Sequence[str]) -> None:
        """Record each collaborator's accuracy matrix: a metric for each task, a step for each task that was learned."""
        for step in range(len(tasks)):
            metrics = {
                f"{name}/accuracy/{task}": value
                for name, matrix in accuracy.items()
                for task, value in zip(tasks, matrix[step], strict=True)
            }
            self._send(_log, {"step": step + 1, "timestamp": get_current_time_millis(), "metrics": metrics})

    def log_trial(self, name: str, key: str, params: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
        """Record one trial as a nested run, once per `key`."""
        trial = {"params": params, "metrics": metrics, "timestamp": get_current_time_millis()}
        tags = {MLFLOW_PARENT_RUN_ID: self.run_id, KEY_TAG: key, STORAGE_TAG: str(self.storage_path)}
        with answering(self.uri):
            _log_trial(self.client, self.experiment_id, name, tags, trial)

    def register(
        self,
        model_name: str,
        bundle: Path,
        fingerprint: str,
        tags: Mapping[str, str] | None = None,
        *,
        write_beside: Callable[[Path], str] | None = None,
    ) -> str:
        """Register a bundle as a logged model and a new version, once per fingerprint; returns the version.

        `write_beside` fills a new folder with additional files for the model and returns the version's description. One
        tag holds the bundle's digest, which identifies copies; `tags` are additional tags.
        """
        with answering(self.uri):
            client = self.client
            if (registered := _registered(client, model_name, fingerprint)) is None:
                description = ""
                model = client.create_logged_model(
                    self.experiment_id, f"bundle-{fingerprint}", self.run_id, model_type="kcm"
                )
                client.log_model_artifacts(model.model_id, str(bundle))
                if write_beside:
                    with tempfile.TemporaryDirectory() as draft:
                        description = write_beside(model_folder := Path(draft) / "model")
                        client.log_model_artifacts(model.model_id, str(model_folder))
                client.finalize_logged_model(model.model_id, "READY")
                client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, step=0)])
                with contextlib.suppress(MlflowException):  # it exists already; the next call raises any other fault
                    client.create_registered_model(model_name)
                created = client.create_model_version(
                    model_name,
                    model.artifact_location,
                    self.run_id,
                    tags={FINGERPRINT_TAG: fingerprint},
                    description=description or None,
                    model_id=model.model_id,
                )
                registered = str(created.version)
            for tag, value in ({DIGEST_TAG: bundle_digest(bundle)} | dict(tags or {})).items():
                client.set_model_version_tag(model_name, registered, tag, value)
            return registered

    def finish(self) -> None:
        """Mark the run as finished."""
        self._send(MlflowClient.set_terminated, FINISHED)

    def _end_running(self, status: str) -> None:
        """Mark all runs of this name and storage that are running, trials too, as ended."""
        with answering(self.uri):
            for run in self.client.search_runs([self.experiment_id], "attributes.status = 'RUNNING'"):
                if run.data.tags.get(STORAGE_TAG) == str(self.storage_path):
                    self.client.set_terminated(run.info.run_id, status)

    def _send(self, send: Callable[..., object], *content: Any) -> None:
        """Call `send` with a client, the run and the content. KcmError if MLflow refuses it."""
        with answering(self.uri):
            send(self.client, self.run_id, *content)


def ensure_database(uri: str) -> None:
    """Create the SQLite file of a tracking URI, with all tables, if it is missing; one of several writers succeeds.

    MLflow creates its tables one by one, by running all its migrations. If it is killed in between, it cannot continue,
    because the first table exists. So the tables are created elsewhere, once per process, and the file is copied. Any
    other URI is left to its server.
    """
    file = Path(uri.removeprefix(SQLITE))
    if uri.startswith(SQLITE) and not file.exists():
        create_durably(file, _without_runs())


@functools.cache
def _without_runs() -> bytes:
    """A database with MLflow's tables. Migrating one takes seconds, so it is kept in the user's cache folder."""
    template = cache_folder() / f"mlflow-{mlflow.__version__}.db"
    with contextlib.suppress(OSError):
        return template.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        MlflowClient(f"{SQLITE}{file}").search_experiments(max_results=1)
        content = file.read_bytes()
    with contextlib.suppress(OSError):  # a cache may be missing or read-only
        create_durably(template, content)
    return content


def _origin() -> dict[str, str]:
    """The command that started a run, and its user, for MLflow's page."""
    command = redacted(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    source_type = SourceType.to_string(SourceType.JOB)
    return {MLFLOW_SOURCE_NAME: command, MLFLOW_SOURCE_TYPE: source_type, MLFLOW_USER: user_name()}


def _log_trial(client: MlflowClient, experiment_id: str, name: str, tags: dict[str, Any], trial: Numbers) -> None:
    runs = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{tags[KEY_TAG]}'", max_results=1)
    if runs and runs[0].info.status == FINISHED:
        return
    run = runs[0] if runs else client.create_run(experiment_id, tags=tags, run_name=name)
    _log(client, run.info.run_id, trial)
    client.set_terminated(run.info.run_id, FINISHED)


@contextlib.contextmanager
def answering(uri: str, hint: str = "Start again once it answers: finished work is kept") -> Iterator[None]:
    """Turn what MLflow raises, and what databases and artefact stores raise within it, into a KcmError with a fix."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise KcmError("the disk is full", where=uri.removeprefix(SQLITE), hint=MAKE_ROOM) from error
        modules = (frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__))
        if not any(module.partition(".")[0] == "mlflow" for module in modules):
            raise  # nothing of MLflow was running
        reason = redacted(" ".join(str(error).split()) or type(error).__name__)[:500]
        raise KcmError(f"MLflow failed: {reason}", where=uri, hint=hint) from error


def fetch_model(uri: str, model: str, target: Path) -> Path:
    """Download `name/version` of the registry into `target`; KcmError if it does not exist."""
    name, _, number = model.rpartition("/")
    with answering(uri):
        try:
            source = MlflowClient(uri).get_model_version_download_uri(name, number)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            raise KcmError(f"no registered model {model!r}: {error}", where=uri, hint="Run `kcm run` first") from error
        return Path(mlflow.artifacts.download_artifacts(source, dst_path=str(target), tracking_uri=uri))


def set_champion(uri: str, model_name: str, version: str) -> None:
    """Point the alias at a version."""
    with answering(uri):
        MlflowClient(uri).set_registered_model_alias(model_name, CHAMPION, version)


def version_tags(uri: str, model_name: str, version: str) -> dict[str, str]:
    """The tags of a registered version."""
    with answering(uri):
        return dict(MlflowClient(uri).get_model_version(model_name, version).tags)


def registered_version(uri: str, model_name: str, fingerprint: str) -> str:
    """The version under which an artefact was registered; KcmError if it was not."""
    with answering(uri):
        registered = _registered(MlflowClient(uri), model_name, fingerprint)
    if registered is None:
        raise KcmError(f"no version of {model_name!r} is artefact {fingerprint}", where=uri, hint="Run `kcm run` again")
    return registered


def _registered(client: MlflowClient, model_name: str, fingerprint: str) -> str | None:
    versions = client.search_model_versions(f"name = '{model_name}'")
    return next(
        (str(version.version) for version in versions if version.tags.get(FINGERPRINT_TAG) == fingerprint), None
    )


def _experiment(client: MlflowClient, name: str, storage_path: Path) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    is_server = client.tracking_uri.startswith("http")  # the server decides where artefacts go
    location = None if is_server else (storage_path.absolute() / "mlflow-artifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def _log(client: MlflowClient, run_id: str, record: Numbers) -> None:
    """Log `params`, and `metrics` with a `step` (default 0) and a `timestamp`."""
    timestamp, step = record["timestamp"], record.get("step", 0)
    metrics = [
        Metric(_safe(key), float(value), timestamp, step)
        for key, value in record["metrics"].items()
        if value is not None
    ]
    params = [Param(_safe(key), str(value)[:6000]) for key, value in record.get("params", {}).items()]
    client.log_batch(run_id, metrics, params[:_PARAMS_AT_ONCE])
    for start in range(_PARAMS_AT_ONCE, len(params), _PARAMS_AT_ONCE):
        client.log_batch(run_id, params=params[start : start + _PARAMS_AT_ONCE])


def _safe(key: str) -> str:
    """MLflow allows letters, digits and a little punctuation in names; task names may contain any character."""
    return "".join(char if char.isalnum() or char in "_-./ " else "_" for char in key)
