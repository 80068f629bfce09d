"""What rows cost at scale: memory of every process of the main job, CPU seconds, seconds of a cache hit.

    python benchmarks/scale.py --rows 1000000 10000000 [--write]

Rows are generated: features that come with them (`precomputed`), two classes that a line nearly tells apart, and the
recorded answers of a large model that is right in 19 of 20 cases. The main job runs in a process of its own, and the
private memory of all its processes is sampled; then once more, when everything is there. `--write` puts the figures
into benchmarks/results/scale.json and prints the table of docs/cluster.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from rich.pretty import pprint

from benchmarks.machine import machine
from benchmarks.script import keep, options, read
from kcm.inputs.vectors import list_column
from kcm.tasks.shards import SHARD_ROWS

FEATURES, BATCH_SIZE, WINDOW = 64, 1024, 16  # features of a row
_MIB = 2**20
_COLUMNS = {  # and what Ray calls the processes
    "driver": "driver",
    "train worker": "RayTrainWorker",
    "a trial": "Trial",
    "`features`, `outcomes`": "MapWorker",
    "the process that certifies and measures": "measure",
    "the one that writes the bundle": "_write_bundle",
}


class Peaks:
    """Samples a process and those below it: CPU seconds, and the largest private memory by Ray's title of a process."""

    def __init__(self, pid: int, every_s: float = 0.2) -> None:
        self._root, self._every_s = psutil.Process(pid), every_s
        self._largest: dict[str, int] = {}
        self._cpu_s: dict[int, float] = {}  # of each process, when it was last seen
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples."""
        self._done.set()
        self._thread.join()

    def mib(self) -> dict[str, int]:
        """MiB by kind of process."""
        return {kind: round(size / _MIB) for kind, size in sorted(self._largest.items())}

    def cpu_s(self) -> float:
        """CPU seconds of all processes together."""
        return sum(self._cpu_s.values())

    def _sample(self) -> None:
        while not self._done.wait(self._every_s):
            with suppress(psutil.Error):  # a process has ended
                for process in [self._root, *self._root.children(recursive=True)]:
                    with suppress(psutil.Error):
                        self._note(process)

    def _note(self, process: psutil.Process) -> None:
        kind, times = "driver", process.cpu_times()
        self._cpu_s[process.pid] = times.user + times.system
        if process.pid != self._root.pid:
            title = (process.cmdline() or [""])[0]
            if not title.startswith("ray::") or title.startswith("ray::IDLE"):
                return
            kind = title.removeprefix("ray::").split(".")[0].split("(")[0].strip()
        memory = process.memory_info()
        self._largest[kind] = max(self._largest.get(kind, 0), memory.rss - memory.shared)


def job(rows: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """The main job over generated rows: seconds by stage, the largest memory by kind of process, a cache hit."""
    records = []
    for count in rows:
        place = folder / f"job-{count}"
        place.mkdir()
        config = place / "run.yaml"
        config.write_text(yaml.safe_dump(_job_config(place, count)), encoding="utf-8")
        first, result = _watched_run(config)
        second_run, _ = _watched_run(config)
        records.append(
            {
                "rows": count,
                "seconds": first["seconds"],
                "cpu_s": first["cpu_s"],
                "stages": {stage: round(seconds, 1) for stage, seconds in result["seconds"].items()},
                "peak_mib": first["peak_mib"],
                "cache_hit_s": second_run["seconds"],
                "cache_hit_cpu_s": second_run["cpu_s"],
                "cache_hit_driver_mib": second_run["peak_mib"]["driver"],
            }
        )
        print(json.dumps(records[-1]), flush=True)
        shutil.rmtree(place)
    return records


def _job_config(folder: Path, count: int) -> dict[str, Any]:
    """The rows and answers as Parquet files, and the configuration of a run over them."""
    write_rows(folder / "rows", folder / "answers.parquet", count)
    source = {"kind": "files", "path": str(folder / "rows" / "*.parquet"), "text_column": None, "id_column": "id"}
    return {
        "name": "scale",
        "storage_path": str(folder / "storage"),
        "tasks": {"scenario": "class_incremental", "num_tasks": 1, "source": source},
        "encoder": {"kind": "precomputed", "column": "embedding"},
        "large": {"adapter": "recorded", "path": str(folder / "answers.parquet")},
        "collaborators": ["kcm"],
        "network": {"hidden": [8]},
        "learner": {"name": "finetune"},
        "train": {"num_epochs": 1, "batch_size": BATCH_SIZE, "window": WINDOW},
        "tune": {"num_trials": 1, "gates": ["confidence"], "learning_rates": [0.003], "large_weights": [1.0]},
        "cluster": {"num_workers": 1, "num_encoders": 2},
    }


def write_rows(folder: Path, answers: Path, count: int) -> None:
    """Rows with their vectors and labels in files of a shard's size, and the large model's answers to them."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    line_D = np.random.default_rng(1).normal(size=FEATURES).astype(np.float32)
    names = np.array(["no", "yes"])
    schema = pa.schema([("id", pa.string()), ("label", pa.string()), ("seconds", pa.float64())])
    with pq.ParquetWriter(answers, schema) as writer:
        for number, start in enumerate(range(0, count, SHARD_ROWS)):
            size = min(SHARD_ROWS, count - start)
            values_ND = rng.normal(size=(size, FEATURES)).astype(np.float32)
            label_N = (values_ND @ line_D + rng.normal(scale=2, size=size) > 0).astype(int)
            ids = pa.array([f"row-{start + row}" for row in range(size)])
            columns = {"id": ids, "embedding": list_column(values_ND), "label": pa.array(names[label_N])}
            pq.write_table(pa.table(columns), folder / f"part-{number:05}.parquet")
            said_N = np.where(rng.random(size) < 0.95, label_N, 1 - label_N)
            column_values = {"id": ids, "label": pa.array(names[said_N]), "seconds": pa.array(np.full(size, 0.5))}
            writer.write_table(pa.table(column_values, schema=schema))


def _watched_run(config: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a configuration by the command: seconds, and the largest memory by kind of process; and its result."""
    started, result = time.perf_counter(), config.with_name("result.json")
    command = [sys.executable, "-m", "jobs.cli", "run", str(config), "--json", str(result)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    peaks = Peaks(process.pid)
    status = process.wait()
    peaks.stop()
    if status:
        raise SystemExit(f"the run ended with {status}")
    usage = {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_s": round(peaks.cpu_s(), 1),
        "peak_mib": peaks.mib(),
    }
    return usage, json.loads(result.read_text(encoding="utf-8"))


def memory_table() -> str:
    """Largest private memory of a process, in MiB, by rows of the job, as `--write` stored it."""
    rows = read("scale")["job"][f"{FEATURES} features"]["found"]
    lines = [f"| rows | {' | '.join(_COLUMNS)} |", "|---" * (len(_COLUMNS) + 1) + "|"]
    for row in rows:
        sizes = (f"{row['peak_mib'][kind]:,}" for kind in _COLUMNS.values())
        lines.append(f"| {row['rows'] / 1e6:g} million | {' | '.join(sizes)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the job for every number of rows."""
    parser = options(__doc__, results="scale")
    parser.add_argument("--rows", nargs="+", type=int, default=[1_000_000])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = job(arguments.rows, Path(folder))
    pprint(rows)
    if arguments.write:
        figures = {f"{FEATURES} features": {"machine": machine(), "found": rows}}
        keep("scale", {"job": read("scale").get("job", {}) | figures})
        print(memory_table())


if __name__ == "__main__":
    main()
