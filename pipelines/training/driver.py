"""The driver of a training: starts Ray Train's workers, shows their progress, and reads their checkpoints."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, report
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from rich.markup import escape

from kcm.errors import KcmError
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import handlers_restored
from pipelines.context import Attempt
from pipelines.progress import Bar, polled
from pipelines.store.checkpoint import newest_checkpoint
from pipelines.store.files import Files
from pipelines.training.worker import PROGRESS, TrainerConfig, WorkerPlan, train_here

MAX_FAILURES = 3  # how often a dead train worker is replaced: further deaths are no accident
ROWS_PER_WORKER = 512  # per step: with fewer rows, waiting for gradients costs more than another worker saves


def trained_by_workers(worker: WorkerPlan, attempt: Attempt) -> dict[str, dict[str, Any]]:
    """The states of trainers that workers have run."""
    context = attempt.context
    configured, num_workers = context.cluster.num_workers, useful_workers(worker.plan.config, context.cluster)
    if most_of(num_workers) < most_of(configured):
        rows = worker.plan.config.train.batch_size
        context.reporter.say(
            f"train: {most_of(num_workers)} of {most_of(configured)} workers: a step has {rows} rows, and more workers"
            f" make it faster from {ROWS_PER_WORKER} rows each"
        )
    cluster = context.cluster.model_copy(update={"num_workers": num_workers})
    return run_workers(worker, cluster, attempt.bar, lambda line: context.reporter.say(escape(line)))


def useful_workers(config: TrainerConfig, cluster: ClusterConfig) -> int | tuple[int, int]:
    """How many of `cluster.num_workers` make a training by steps faster; for a pair, at least its first number.

    Measured with gloo between two hosts 0.25 ms apart: an all-reduce takes 0.8 ms and 12 ns a byte; a row takes 1.6 us
    in 900 parameters and 61 to 75 us in a million. Two workers then break even at 800 to 960 rows a step.
    """
    configured = cluster.num_workers
    if config.is_solved or cluster.gpus_per_worker:
        return configured
    fewest, most = (1, configured) if isinstance(configured, int) else configured
    useful = max(fewest, min(most, config.train.batch_size // ROWS_PER_WORKER))
    return useful if isinstance(configured, int) or useful == fewest else (fewest, useful)


def most_of(num_workers: int | tuple[int, int]) -> int:
    """The number of workers, or the larger of two."""
    return num_workers if isinstance(num_workers, int) else num_workers[1]


def run_workers(
    worker: WorkerPlan, cluster: ClusterConfig, bar: Bar, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Run a TorchTrainer until every trainer is done; the state of each trainer by collaborator.

    A worker that dies is replaced, up to `MAX_FAILURES` times, and resumes from the newest valid checkpoint; so does a
    second call on the same storage after the driver has died. An elastic run restarts with as many workers as the
    remaining nodes can hold. `say` receives a line for a checkpoint that is skipped at the start. Raises ArtefactError,
    before a worker is started, for checkpoints of another configuration.
    """
    files, folder, gpus = worker.storage.files, worker.storage.root, cluster.gpus_per_worker
    newest_checkpoint(files, fingerprint=worker.fingerprint, say=say)
    # Why not Ray's own checkpoints: `pipelines.store.checkpoint`. Its record of an attempt refuses a second start.
    attempt = 1 + max((int(path.name.split("-")[1]) for path in folder.glob("attempt-*")), default=0)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"worker": worker},
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,  # type: ignore[arg-type]  # the types are those of an older ScalingConfig
            use_gpu=bool(gpus),
            resources_per_worker={"CPU": cluster.cpus_per_worker} | ({"GPU": gpus} if gpus else {}),
            accelerator_type=cluster.accelerator_type,
        ),
        torch_config=TorchConfig(backend=backend(gpus)),
        run_config=RunConfig(
            name=f"attempt-{attempt}",
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    try:
        with polled(bar, progress_reader(files)), handlers_restored(signal.SIGINT):
            trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error) from error
    state = newest_checkpoint(files, fingerprint=worker.fingerprint, say=lambda line: None)
    if state is None:
        raise KcmError("training ended without a checkpoint", where=files.uri)
    for path in folder.glob("attempt-*"):
        shutil.rmtree(path, ignore_errors=True)
    return state


def backend(gpus: float) -> str:
    """The process group of workers: NCCL is in no CPU build of torch, and refuses two ranks on one GPU."""
    return "cpu:gloo,cuda:nccl" if gpus >= 1 else "gloo"


def train_worker(config: dict[str, Any]) -> None:
    """Entry point of a worker; `config["worker"]` is a WorkerPlan."""
    train_here(config["worker"], report, get_device())


def _cause(error: BaseException) -> BaseException:
    """The worker's KcmError, otherwise the failure itself."""
    causes = getattr(error, "worker_failures", {})
    for cause in causes.values():
        while cause is not None:
            if isinstance(cause, KcmError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    return error


def progress_reader(files: Files) -> Callable[[], tuple[float, float] | None]:
    """A function that returns the steps taken and the steps in all, as rank 0 wrote them last.

    Ray's `UserCallback` would not replace it: it runs in Train's controller, another process, from which the driver
    would have to fetch the same numbers. The storage is polled at a bounded rate.
    """
    looked = float("-inf")
    shown: tuple[float, float] | None = None

    def read() -> tuple[float, float] | None:
        nonlocal looked, shown
        if time.monotonic() - looked >= files.poll_s:
            looked = time.monotonic()
            with suppress(KcmError, OSError):
                progress = json.loads(files.read(PROGRESS))
                shown = progress["steps"], progress["total"]
        return shown

    return read
