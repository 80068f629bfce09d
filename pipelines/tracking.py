"""MLflow: one run per run of the pipeline, a nested run per trial, metrics while training, and the model registry."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from mlflow.utils.time import get_current_time_millis
from pydantic import Field
from ray.train import UserCallback

from kcm.config import Config
from kcm.errors import KcmError

KEY_TAG = "kcm.key"
FINGERPRINT_TAG = "kcm.fingerprint"
CHAMPION = "champion"
SQLITE = "sqlite:///"


class TrackingConfig(Config):
    """Where runs and models are recorded; nothing here changes a result."""

    uri: str | None = Field(None, description="MLflow tracking URI; SQLite in the storage path without one.")
    experiment: str = Field("kcm", min_length=1, description="MLflow experiment.")
    model_name: str | None = Field(None, description="Registered model; the run's name without one.")

    def uri_in(self, storage_path: Path) -> str:
        """The tracking URI of runs that keep their artefacts in `storage_path`."""
        return self.uri or f"{SQLITE}{storage_path.absolute() / 'mlflow.db'}"

    def model_of(self, run_name: str) -> str:
        """The registered model of a run."""
        return self.model_name or run_name


@dataclass(frozen=True)
class Tracking:
    """The record of one run of the pipeline."""

    uri: str
    run_id: str
    experiment_id: str

    @classmethod
    def open(cls, config: TrackingConfig, storage_path: Path, *, name: str, key: str) -> Tracking:
        """The run tagged with `key`, so that an interrupted run goes on in the same record, else a new one."""
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it creates
        uri = config.uri_in(storage_path)
        client = MlflowClient(uri)
        try:
            experiment_id = _experiment(client, config.experiment, storage_path)
            found = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
            run = found[0] if found else client.create_run(experiment_id, run_name=name, tags={KEY_TAG: key})
        except MlflowException as error:
            raise KcmError(f"MLflow does not answer: {error}", where=uri, mend="Check tracking.uri") from error
        return cls(uri, run.info.run_id, experiment_id)

    @property
    def client(self) -> MlflowClient:
        """A client of the tracking store."""
        return MlflowClient(self.uri)

    def callback(self) -> MetricsCallback:
        """A Ray Train callback that records metrics as workers report them."""
        return MetricsCallback(self.uri, self.run_id)

    def log(self, params: Mapping[str, Any], metrics: Mapping[str, float | None], report: Path) -> None:
        """Record parameters, metrics (one without a value is left out) and the report."""
        client = self.client
        _log(client, self.run_id, params, metrics)
        client.log_artifact(self.run_id, str(report))

    def log_trial(self, name: str, key: str, params: Mapping[str, Any], metrics: Mapping[str, float | None]) -> None:
        """Record one trial as a nested run, once per `key`."""
        client = self.client
        if client.search_runs([self.experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1):
            return
        tags = {MLFLOW_PARENT_RUN_ID: self.run_id, MLFLOW_RUN_NAME: name, KEY_TAG: key}
        run_id = client.create_run(self.experiment_id, tags=tags).info.run_id
        _log(client, run_id, params, metrics)
        client.set_terminated(run_id)

    def publish(self, model_name: str, bundle: Path, fingerprint: str) -> str:
        """Register a bundle as a new version, make it the champion, and return the version; once per fingerprint."""
        client = self.client
        if (found := _registered(client, model_name, fingerprint)) is None:
            artifact_path = f"bundle-{fingerprint}"
            client.log_artifacts(self.run_id, str(bundle), artifact_path)
            with contextlib.suppress(MlflowException):  # there already; any other fault shows in the next call
                client.create_registered_model(model_name)
            source = f"{client.get_run(self.run_id).info.artifact_uri}/{artifact_path}"
            tags = {FINGERPRINT_TAG: fingerprint}
            found = str(client.create_model_version(model_name, source, self.run_id, tags=tags).version)
        client.set_registered_model_alias(model_name, CHAMPION, found)
        return found

    def finish(self) -> None:
        """Mark the run as finished."""
        self.client.set_terminated(self.run_id, RunStatus.to_string(RunStatus.FINISHED))


class MetricsCallback(UserCallback):
    """Records the metrics of each report; it runs in Ray Train's controller, so workers never wait for MLflow."""

    def __init__(self, uri: str, run_id: str) -> None:
        self._uri, self._run_id = uri, run_id

    def after_report(
        self, run_context: object, metrics: list[dict[str, Any]], checkpoint: ray.train.Checkpoint | None
    ) -> None:
        """Log rank 0's metrics against the steps taken."""
        values = dict(metrics[0])
        step = int(values.pop("steps", 0))
        _log(MlflowClient(self._uri), self._run_id, {}, values, step=step)


def fetch_model(uri: str, model: str, target: Path) -> Path:
    """Download `name@alias` or `name/version` of the registry into `target`; KcmError when there is none."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    try:
        return Path(mlflow.artifacts.download_artifacts(f"models:/{model}", dst_path=str(target)))
    except MlflowException as error:
        raise KcmError(f"no registered model {model!r}: {error}", where=uri, mend="Run `kcm run` first") from error


def champion_of(uri: str, model_name: str) -> str:
    """The version that the alias points at."""
    return str(MlflowClient(uri).get_model_version_by_alias(model_name, CHAMPION).version)


def _registered(client: MlflowClient, model_name: str, fingerprint: str) -> str | None:
    versions = client.search_model_versions(f"name = '{model_name}'")
    return next((str(each.version) for each in versions if each.tags.get(FINGERPRINT_TAG) == fingerprint), None)


def _experiment(client: MlflowClient, name: str, storage_path: Path) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = (
        (storage_path.absolute() / "mlflow-artifacts").as_uri() if client.tracking_uri.startswith("sqlite") else None
    )
    return str(client.create_experiment(name, artifact_location=location))


def _log(
    client: MlflowClient,
    run_id: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    *,
    step: int = 0,
) -> None:
    now = get_current_time_millis()
    client.log_batch(
        run_id,
        metrics=[Metric(_safe(key), float(value), now, step) for key, value in metrics.items() if value is not None],
        params=[Param(_safe(key), str(value)[:6000]) for key, value in params.items()],
        tags=list[RunTag](),
    )


def _safe(key: str) -> str:
    """MLflow allows letters, digits and a little punctuation in names; task names may hold anything."""
    return "".join(char if char.isalnum() or char in "_-./ " else "_" for char in key)
