"""A small champion with a log of traffic of a new domain, and commands run beside it; for benchmarks of the loop."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from loop_replay import Replay

from jobs.commands.serving.service import ServiceSettings
from jobs.models import served_model
from kcm.api.cascade import Cascade, load_cascade
from kcm.bundle.answers import Input
from kcm.config import load_config
from kcm.errors import DataError
from kcm.inputs.content import Content
from kcm.tasks.rows import SourceRow
from pipelines.config import RunConfig
from pipelines.loop.inbox import opened_inbox
from pipelines.serve.config import log_url
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback

ROOT = Path(__file__).parents[1]
CONFIG = Path(__file__).with_name("loop_demo.yaml")
LOG = "log.txt"  # beside a scene: what its commands said
REQUEST = 32

# As little of everything as a turn needs: what is measured is not how good it is.
SMALL = {
    "tasks.max_rows_per_task": 120,
    "large.encoder": "{model: sentence-transformers/all-MiniLM-L6-v2, pooling: cls}",
    "train.num_epochs": 2,
    "tune.num_trials": 1,
    "tune.max_loss": 0.05,
    "certificate.epsilon": 0.2,
    "cluster.num_encoders": 1,
    "cluster.num_workers": 1,
    "update.min_large_answers": 50,
    "update.gates": "{max_old_task_loss: 0.99, max_cost: 9, max_latency: 9, panel_size: 4}",
}


@dataclass(frozen=True)
class Scene:
    """A storage below `folder`, and the configuration of what happens in it."""

    folder: Path
    assets: Path
    values: dict[str, Any] = field(default_factory=lambda: dict(SMALL))

    @property
    def storage(self) -> Path:
        """Where the run keeps everything."""
        return self.folder / "storage"

    @property
    def config(self) -> RunConfig:
        """The configuration."""
        return load_config(RunConfig, CONFIG, [f"{key}={value}" for key, value in self._values.items()])

    def start(self, command: str, *words: str) -> subprocess.Popen[bytes]:
        """`kcm COMMAND CONFIG` as a process of its own group; what it says goes to a file."""
        overrides = [word for key, value in self._values.items() for word in ("--set", f"{key}={value}")]
        with (self.folder / LOG).open("ab") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", command, str(CONFIG), *overrides, *words],
                stdout=said,
                stderr=said,
                start_new_session=True,
                cwd=ROOT,
            )

    def result_of(self, command: str, *words: str) -> tuple[dict[str, Any], Taken]:
        """The JSON result of a command, and what it took. RuntimeError where it fails."""
        result = self.folder / "result.json"
        started = time.perf_counter()
        process = self.start(command, *words, "--json", str(result))
        processor = ProcessorTime(process.pid)
        code = process.wait()
        taken = Taken(time.perf_counter() - started, processor.stop())
        found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        if code:
            raise RuntimeError(f"kcm {command} ended with {code}: {found.get('error')}")
        return found, taken

    def save(self, name: str) -> None:
        """Keep the storage as it is."""
        _copy(self.storage, self.folder / name)

    def restore(self, name: str) -> None:
        """Go back to what was saved; at the same place, since MLflow's records name it."""
        for kept in self.storage.iterdir():
            if kept.is_dir():
                shutil.rmtree(kept)
            elif not _is_database(kept.name):
                kept.unlink()
        _copy(self.folder / name, self.storage)

    def play(self, rows: Sequence[SourceRow]) -> dict[str, Sequence[SourceRow]]:
        """Put rows to the champion, in this process; the rows of each request by its id."""
        config, requests = self.config, {}
        version = served_model(config, None).version
        with self._log() as log:
            replay = Replay(self.cascade(), log, version, config.serve.audit.share, "all")
            for start in range(0, len(rows), REQUEST):
                part = rows[start : start + REQUEST]
                requests[replay.answer([Input(Content(row.text), group=row.group) for row in part])] = part
        return requests

    def send_labels(self, requests: Mapping[str, Sequence[SourceRow]], labelled: int) -> None:
        """Labels of whoever sent the rows of these requests, for one in `labelled`."""
        new = self.config.update.more_labels if self.config.update else ()
        with self._log() as log:
            for request, rows in requests.items():
                labels = [
                    Feedback(n, str(row.label), new=row.label in new or None)
                    for n, row in enumerate(rows)
                    if n % labelled == 0
                ]
                log.add_feedback(request, None, labels)

    @contextmanager
    def _log(self) -> Iterator[DecisionLog]:
        config = self.config
        log = DecisionLog(log_url(config.serve, config.storage_folder), 30.0, config.name)
        log.open()
        try:
            yield log
        finally:
            log.close()

    def label(self, truth: Mapping[str, str]) -> int:
        """Answer the challenger's inbox by the true labels of its texts until they suffice; how many were given."""
        config, given = self.config, 0
        try:
            with opened_inbox(config) as inbox:
                for item in inbox.items("drawn"):
                    if inbox.standing().certified:
                        break
                    inbox.answer({item.id: truth[item.text or ""]})
                    given += 1
        except DataError:  # it is certified without one
            return 0
        return given

    def cascade(self, version: str | None = None) -> Cascade:
        """A registered version, or the champion."""
        config = self.config
        bundle, upstreams = served_model(config, version).bundle, ServiceSettings.of(config).serve.large.upstreams
        return load_cascade(bundle, self.assets, upstreams=upstreams)

    @property
    def _values(self) -> dict[str, Any]:
        return {"storage_path": self.storage, "assets_path": self.assets} | self.values


@dataclass(frozen=True)
class Taken:
    """What a command took: seconds, and seconds of the processor in all its processes."""

    seconds: float
    cpu_s: float


class ProcessorTime:
    """Samples what a process and all below it have used of the processor; what a process uses last may be missed."""

    def __init__(self, pid: int, every_s: float = 0.2) -> None:
        self._root, self._every_s = psutil.Process(pid), every_s
        self._used: dict[tuple[int, float], float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Take no more samples, and give the seconds."""
        self._done.set()
        self._thread.join()
        return sum(self._used.values())

    def _sample(self) -> None:
        while not self._done.wait(self._every_s):
            with suppress(psutil.Error):  # a process has ended
                for process in [self._root, *self._root.children(recursive=True)]:
                    with suppress(psutil.Error):
                        times = process.cpu_times()
                        self._used[process.pid, process.create_time()] = times.user + times.system


def _copy(source: Path, target: Path) -> None:
    """Copy a storage over another; databases by SQLite itself, since MLflow's client holds its own open."""
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=_databases)
    for file in source.rglob("*.db"):
        with closing(sqlite3.connect(file)) as read, closing(sqlite3.connect(target / file.relative_to(source))) as out:
            read.backup(out)


def _databases(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if _is_database(name)]


def _is_database(name: str) -> bool:
    return name.partition(".db")[2] in ("", "-wal", "-shm", "-journal") and ".db" in name
