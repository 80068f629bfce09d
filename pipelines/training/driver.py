"""The driver of a training: starts Ray Train's workers, shows their progress, and reads their checkpoints."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from kcm.errors import KcmError
from pipelines.cluster import ClusterConfig
from pipelines.progress import Bar, polled
from pipelines.signals import handlers_restored
from pipelines.store.checkpoint import newest_checkpoint
from pipelines.training.worker import METRICS, NOTES, PROGRESS, WorkerPlan, train_worker


def run_workers(
    worker: WorkerPlan,
    cluster: ClusterConfig,
    bar: Bar,
    say: Callable[[str], None],
    record: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, dict[str, object]]:
    """Run a TorchTrainer until every trainer is done; the state of each trainer by collaborator.

    A worker that dies is replaced, up to `max_failures` times, and resumes from the newest valid checkpoint; so does a
    second call on the same storage after the driver has died. An elastic run restarts with as many workers as the
    remaining nodes can hold. `say` receives a line for a skipped checkpoint, `record` the metrics as they are reported.
    Raises ArtefactError, before a worker is started, for checkpoints of another configuration.
    """
    monitor = StorageMonitor(worker.storage, say, record)
    newest_checkpoint(worker.storage, fingerprint=worker.fingerprint, say=monitor.say)
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
        ),
    )
    try:
        with polled(bar, monitor.progress), handlers_restored(signal.SIGINT):
            trainer.fit()
        monitor.progress()  # what came after the last look
    except TrainingFailedError as error:
        raise _cause(error) from error
    state = newest_checkpoint(worker.storage, fingerprint=worker.fingerprint, say=monitor.say)
    if state is None:
        raise KcmError("training ended without a checkpoint", where=str(worker.storage))
    for path in worker.storage.glob("attempt-*"):
        shutil.rmtree(path, ignore_errors=True)
    return state


def _cause(error: BaseException) -> BaseException:
    """The worker's KcmError, else the failure as it is."""
    causes = getattr(error, "worker_failures", {})
    for cause in causes.values():
        while cause is not None:
            if isinstance(cause, KcmError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    return error


class StorageMonitor:
    """Follows the files of rank 0 in the storage folder: progress, metrics, and notes for the user."""

    def __init__(
        self, storage: Path, say: Callable[[str], None], record: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self._progress, self._notes, self._say = storage / PROGRESS, storage / NOTES, say
        self._metrics, self._record, self._recorded = storage / METRICS, record, 0
        self._notes.unlink(missing_ok=True)
        self._lines: set[str] = set()

    def say(self, line: str) -> None:
        """Report a line once: every restart of the workers finds the same damage."""
        if line not in self._lines:
            self._lines.add(line)
            self._say(line)

    def progress(self) -> tuple[float, float] | None:
        """Steps taken and steps in all; also reports new notes and records new metrics."""
        self._record_metrics()
        for line in _read(self._notes).splitlines():
            self.say(line)
        try:
            progress = json.loads(_read(self._progress))
        except ValueError:
            return None
        return progress["steps"], progress["total"]

    def _record_metrics(self) -> None:
        """Record the metrics of complete new lines; those of an earlier attempt once more."""
        if self._record is None:
            return
        lines = _read(self._metrics).split("\n")[:-1]
        for line in lines[self._recorded :]:
            self._record(json.loads(line))
        self._recorded = len(lines)


def _read(path: Path) -> str:
    """The text of a file, empty where there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else ""
