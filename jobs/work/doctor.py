"""What `kcm doctor` checks: whether the cluster, the storage and the services of a run are fit for it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import ray
import typer
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from kcm.encoders.config import towers_of
from kcm.errors import KcmError
from pipelines.cluster.config import ClusterConfig, require_room, starts_local
from pipelines.cluster.connection import connected
from pipelines.config import RunConfig
from pipelines.nodes import NodeReport, node_reports, on_every_node, require_alike, require_service, require_shared
from pipelines.run import STAGES
from pipelines.serve.config import log_url
from pipelines.serve.log.database import Database, LogUnavailableError
from pipelines.store.artefact import ArtefactStore
from pipelines.tracking.config import SQLITE

MAX_SKEW_S = 30.0  # largest difference of two clocks: logs compare the times of several nodes
MIN_FREE_GIB = 1.0
LOG_ANSWER_S = 10.0

Check = tuple[str, Callable[[], str]]  # its name, and a function that returns a line or raises KcmError


def report(config: RunConfig) -> dict[str, list[str]]:
    """Run all checks and print a line for each; returns the names of passed checks and of faults."""
    with ExitStack() as stack:
        return examine(checks(config, stack), typer.echo)


def examine(checks: Iterator[Check], say: Callable[[str], None]) -> dict[str, list[str]]:
    """Run the checks, print a line for each, and return the names of passed checks and of faults."""
    outcomes: dict[str, list[str]] = {"passed": [], "faults": []}
    for name, check in checks:
        try:
            line, state = check(), "passed"
        except KcmError as error:
            line, state = str(error), "faults"
        outcomes[state].append(name)
        say(f"{'ok' if state == 'passed' else 'FAULT':<6}{name:<9}{line}")
    return outcomes


def checks(config: RunConfig, stack: ExitStack) -> Iterator[Check]:
    """The checks of a run. Later checks need the results of earlier ones, and are skipped if one has failed."""
    yield "stages", partial(_stages, config)
    if not starts_local(config.cluster):
        yield "cluster", partial(_cluster, config.cluster, stack)
        if not ray.is_initialized():
            return
    reports: list[NodeReport] = []
    yield "storage", partial(_storage, config, reports)
    if reports:
        yield "versions", partial(require_alike, reports)
        yield "clocks", partial(_clocks, reports)
        yield "disks", partial(_disks, reports)
        if ray.is_initialized():
            yield "service", partial(require_service, reports)
    yield "models", partial(_models, config)
    yield "log", partial(_log, log_url(config.serve, config.storage_folder))
    yield "MLflow", partial(_mlflow, config.tracking.uri_in(config.storage_folder))
    yield "room", partial(_room, config.cluster)


def _stages(config: RunConfig) -> str:
    for stage in STAGES:
        stage.of(config).check()
    return f"{len(STAGES)} stages fit together"


def _cluster(config: ClusterConfig, stack: ExitStack) -> str:
    stack.enter_context(connected(config))
    nodes, resources = [node for node in ray.nodes() if node["Alive"]], ray.cluster_resources()
    return f"{len(nodes)} nodes, {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"


def _storage(config: RunConfig, reports: list[NodeReport]) -> str:
    """Read, write and create in the storage, on every node; `reports` receives the nodes' reports."""
    files = ArtefactStore(config.storage_path).storage.files
    reports += node_reports(files)
    require_shared(reports, files)
    return f"{files.uri}: each of {len(reports)} nodes reads, writes, and creates once"


def _clocks(reports: Sequence[NodeReport]) -> str:
    skews = {report.name: report.skew_s for report in reports}
    worst = max(skews, key=lambda name: abs(skews[name]))
    if abs(skews[worst]) > MAX_SKEW_S:
        hint = "Set the clocks of all nodes by NTP"
        raise KcmError(f"its clock differs from this one by {skews[worst]:+.0f} s", where=worst, hint=hint)
    return f"within {max(1.0, abs(skews[worst])):.0f} s"


def _disks(reports: Sequence[NodeReport]) -> str:
    fullest = min(reports, key=lambda report: report.free_gib)
    if fullest.free_gib < MIN_FREE_GIB:
        raise KcmError(
            f"only {fullest.free_gib:.1f} GiB are free for temporary files", where=fullest.name, hint="Free some"
        )
    return f"at least {fullest.free_gib:.0f} GiB are free for temporary files"


def _models(config: RunConfig) -> str:
    answers = on_every_node(partial(_models_here, config))
    for name, answer in answers.items():
        if isinstance(answer, KcmError):
            where = ", ".join(filter(None, [name, answer.where]))
            raise type(answer)(answer.what, where=where, hint=answer.hint)
    names = " and ".join(dict.fromkeys(name for name, _ in _local_models(config)))
    return f"the models of {names} are on each of {len(answers)} nodes"


def _models_here(config: RunConfig) -> None:
    """Raise KcmError if this node lacks a model."""
    for _, identity in _local_models(config):
        identity(config.assets_path)


def _local_models(config: RunConfig) -> Iterator[tuple[str, Callable[[Path], str]]]:
    """The models that nodes load: the name, and a function that reads the files for the identity."""
    for encoder in filter(None, (config.encoder, config.large.backbone)):
        towers = towers_of(encoder)  # the run fits a head on them
        for part in (towers.image, towers.text) if towers else (encoder,):
            yield part.name, part.identity
    if not (config.large.backbone or config.large.remote or config.large.is_recorded):
        yield config.large.location, partial(config.large.identity, ())


def _log(url: str) -> str:
    if url.startswith("sqlite"):
        return "SQLite, for replicas on one machine"
    try:
        with Database(url, LOG_ANSWER_S) as database:
            database.open()
    except LogUnavailableError as error:
        hint = "Check serve.feedback.url, and PGPASSWORD on every node"
        raise KcmError(f"the log's database does not answer: {error.what}", where=url, hint=hint) from error
    return url


def _mlflow(uri: str) -> str:
    if uri.startswith(SQLITE):
        return "SQLite, for runs on one machine"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    started = time.monotonic()
    try:
        MlflowClient(uri).search_experiments(max_results=1)
    except MlflowException as error:
        raise KcmError(f"MLflow does not answer: {error}", where=uri, hint="Check tracking.uri") from error
    return f"{uri} answers in {time.monotonic() - started:.1f} s"


def _room(config: ClusterConfig) -> str:
    require_room(config)
    fewest = config.fewest_workers
    if not ray.is_initialized():
        return f"the run starts a local cluster with {config.num_cpus} CPUs"
    resources: Mapping[str, float] = ray.cluster_resources()
    demand = {"CPU": fewest * config.cpus_per_worker, "GPU": float(fewest if config.use_gpu else 0)}
    for kind, count in demand.items():
        if count > resources.get(kind, 0):
            raise KcmError(
                f"{fewest} train workers need {count:g} {kind}s, the cluster has {resources.get(kind, 0):g}",
                where="cluster.num_workers",
                hint="Lower it or add nodes; an autoscaler adds them only once work waits for them",
            )
    return f"{demand['CPU']:g} CPUs and {demand['GPU']:g} GPUs for {fewest} train workers"
