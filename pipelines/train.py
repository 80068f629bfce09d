"""Stage `train`: Ray Train workers walk the task sequence and train the collaborators."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from kcm.errors import KcmError
from pipelines.artefact import Artefact, Recipe
from pipelines.checkpoint import newest_checkpoint
from pipelines.cluster import ClusterConfig
from pipelines.progress import Bar, polled
from pipelines.stage import Context
from pipelines.tracking import MetricsCallback
from pipelines.train_worker import PROGRESS, WalkPlan, WorkerPlan, train_worker

VERSION = 3


def train(context: Context, plan: WalkPlan, features: Artefact, outcomes: Artefact) -> Artefact:
    """Trained collaborators: `<name>.pt`, the state of a finished walk, for each of them."""
    config = context.config
    section = {
        "collaborators": plan.collaborators,
        "network": config.network.model_dump(mode="json"),
        "learner": config.learner.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json"),
        "distill": config.distill.model_dump(mode="json"),
        "seed": config.seed,
    }
    recipe = Recipe("train", VERSION, section, (features, outcomes))

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        worker = WorkerPlan(plan, recipe.fingerprint, scratch, config.cluster.checkpoint_every)
        callbacks = [context.tracking.callback()] if context.tracking else []
        state = run_workers(worker, config.cluster, bar, callbacks)
        for name in plan.collaborators:
            torch.save(state[name], folder / f"{name}.pt")

    return context.build(recipe, write, unit="steps")


def run_workers(
    worker: WorkerPlan, cluster: ClusterConfig, bar: Bar, callbacks: list[MetricsCallback] | None = None
) -> dict[str, dict[str, object]]:
    """Run a TorchTrainer until every walk is done; the state of each walk by collaborator.

    A worker that dies is replaced, up to `max_failures` times, and goes on from the newest sound checkpoint; so does
    a second call on the same storage after the driver has died.
    """
    # Our checkpoints say all; Ray's own record of an earlier attempt refuses a second start, and may be torn.
    attempt = 1 + max((int(path.name.split("-")[1]) for path in worker.storage.glob("attempt-*")), default=0)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"worker": worker},
        scaling_config=ScalingConfig(
            num_workers=cluster.num_workers,
            use_gpu=cluster.use_gpu,
            resources_per_worker={"CPU": cluster.cpus_per_worker} | ({"GPU": 1} if cluster.use_gpu else {}),
        ),
        run_config=RunConfig(
            name=f"attempt-{attempt}",
            storage_path=str(worker.storage),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=list[UserCallback](callbacks or []),
        ),
    )
    try:
        with polled(bar, lambda: _progress(worker.storage / PROGRESS)), _own_interrupt():
            trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error) from error
    state = newest_checkpoint(worker.storage, fingerprint=worker.fingerprint, say=print)
    if state is None:
        raise KcmError("training ended without a checkpoint", where=str(worker.storage))
    for path in worker.storage.glob("attempt-*"):
        shutil.rmtree(path, ignore_errors=True)
    return state


def _cause(error: BaseException) -> BaseException:
    """The worker's own error where it is one that a person can mend, else the failure as it is."""
    causes = getattr(error, "worker_failures", {})
    for cause in causes.values():
        while cause is not None:
            if isinstance(cause, KcmError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    return error


@contextmanager
def _own_interrupt() -> Iterator[None]:
    """Give Ctrl-C back to the caller afterwards: Ray Train leaves a handler of its own behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _progress(path: Path) -> tuple[float, float] | None:
    """What rank 0 has left at `path`."""
    try:
        progress = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return progress["steps"], progress["total"]
