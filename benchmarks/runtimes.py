"""What runtimes and precisions of encoders cost: torch, ONNX Runtime, bfloat16, int8; and `features` beside that.

`--only threads` measures one process of two threads against two of one; it alone needs a machine that is left alone.

    kcm assets reviews sentence-transformers/all-MiniLM-L6-v2 sentence-transformers/all-mpnet-base-v2
    python benchmarks/runtimes.py [--only PART] [--texts N] [--write]

Review sentences, one thread. Times are CPU seconds, since others may use the machine; all forms take turns within a
round, and the median ratio to torch in float32 over the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # as Ray gives an actor of one CPU; before torch is imported

import numpy as np
import psutil
import pyarrow as pa
from machine import machine
from rich.console import Console
from rich.table import Table
from runtimes_threads import Processes
from runtimes_threads import threads as shapes

from kcm.encoders import Encoder, TextEncoderConfig
from kcm.inputs.content import Content, contents
from kcm.tasks.readers.reviews import read_reviews
from pipelines.batch.encoding import encoded
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected
from pipelines.context import Context
from pipelines.progress import Reporter
from pipelines.store.artefact import ArtefactStore

RESULTS = Path(__file__).parent / "results" / "runtimes.json"
MODELS = ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-mpnet-base-v2")
FORMS: dict[str, dict[str, Any]] = {
    "torch": {"runtime": "torch"},
    "torch bfloat16": {"precision": "bfloat16"},
    "onnx": {"runtime": "onnx"},
    "onnx int8": {"precision": "int8"},
}
ROUNDS = 3
NUM_ALONE = 24  # texts of a round that are encoded one by one


def encoders(texts: Sequence[str], assets: Path) -> dict[str, Any]:
    """Each model in each form: one by one and together."""
    inputs, found = contents(texts), {}
    for model in MODELS:
        built = {form: _config(model, form).build(assets) for form in FORMS}
        vectors = {form: encoder.encode(inputs) for form, encoder in built.items()}  # warms up, too
        rounds = [{form: _round(encoder, inputs, turn) for form, encoder in built.items()} for turn in range(ROUNDS)]
        found[model] = {
            form: {
                "one_ms": statistics.median(each[form][0] for each in rounds),
                "rows_per_s": statistics.median(each[form][1] for each in rounds),
                "one_vs_torch": statistics.median(each[form][0] / each["torch"][0] for each in rounds),
                "many_vs_torch": statistics.median(each[form][1] / each["torch"][1] for each in rounds),
                "largest_difference": float(np.abs(vectors[form] - vectors["torch"]).max()),
                "smallest_cosine": float((vectors[form] * vectors["torch"]).sum(axis=1).min()),
            }
            for form in FORMS
        }
    return found


def _round(encoder: Encoder, inputs: Sequence[Content], turn: int) -> tuple[float, float]:
    """Milliseconds for a text alone, and rows a second for all of them."""
    some = [inputs[(turn * NUM_ALONE + index) % len(inputs)] for index in range(NUM_ALONE)]
    alone = _cpu_s(lambda: [encoder.encode([each]) for each in some])
    return 1000 * alone / NUM_ALONE, len(inputs) / _cpu_s(lambda: encoder.encode(inputs))


def _cpu_s(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


class Marks:
    """The bar of a pass: the rows done and the CPU seconds of the cluster, at the first progress and at the last."""

    def __init__(self) -> None:
        self.first = self.last = (0, 0.0)

    def update(self, done: int, total: int) -> None:
        """Called as rows are done."""
        if done:
            self.last = done, _cluster_cpu_s()
            self.first = self.first if self.first[0] else self.last


def features(texts: Sequence[str], assets: Path) -> dict[str, Any]:
    """The pass of stage `features` over Ray actors, against as many bare encoders: CPU seconds of all that works."""
    rows = pa.table({"id": [str(number) for number in range(len(texts))], "text": list(texts)})
    cluster, found = ClusterConfig(), {}
    with connected(cluster), tempfile.TemporaryDirectory() as folder:
        context = Context("runtimes", ArtefactStore(Path(folder)), assets, cluster, Reporter(Console(quiet=True)))
        for form in FORMS:
            config, marks = _config(MODELS[0], form), Marks()
            config.build(assets)  # exports it, where that has to be done
            before, ours = _cluster_cpu_s(), time.process_time()
            encoded(context, config, rows, scratch=Path(folder) / form.replace(" ", "-"), bar=marks)  # type: ignore[arg-type]
            ours = time.process_time() - ours  # the driver's part, which is spread over the pass
            (first, at_first), (last, at_last) = marks.first, marks.last
            shape = (cluster.num_encoders, 1)
            with closing(Processes(texts[first:], assets, {"model": MODELS[0]} | FORMS[form], shape)) as bare:
                bare_cpu_ms = bare.encode()[1]
            staged = (at_last - at_first) / (last - first) + ours / last
            found[form] = {
                "bare_cpu_ms": bare_cpu_ms,
                "stage_cpu_ms": 1000 * staged,
                "share": bare_cpu_ms / (1000 * staged),
                "start_cpu_s": at_first - before - first * (staged - ours / last),
            }
    return found


def _cluster_cpu_s() -> float:
    """CPU seconds so far of the processes of this process's cluster."""
    times = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            times.append(process.cpu_times())
    return sum(each.user + each.system for each in times)


def threads(texts: Sequence[str], assets: Path) -> dict[str, Any]:
    """Processes and threads of each, in torch and in ONNX Runtime: by the clock, see `runtimes_threads`."""
    forms = {form: FORMS[form] for form in ("torch", "torch bfloat16", "onnx")}
    return {form: shapes(texts, assets, {"model": MODELS[0]} | each) for form, each in forms.items()}


def _config(model: str, form: str) -> TextEncoderConfig:
    return TextEncoderConfig(model=model, **FORMS[form])


def tables(results: dict[str, dict[str, Any]]) -> list[Table]:
    """What was measured."""
    shown = []
    if "encoders" in results:
        table = Table(title="Encoders, one thread, CPU time", title_style="bold")
        for column in (
            "model",
            "form",
            "one text, ms",
            "vs torch",
            "rows/s",
            "vs torch",
            "largest difference",
            "cosine",
        ):
            table.add_column(column, justify="left" if column in ("model", "form") else "right")
        for model, forms in results["encoders"].items():
            for form, each in forms.items():
                one, many = f"{each['one_vs_torch']:.2f}x", f"{each['many_vs_torch']:.2f}x"
                differs = f"{each['largest_difference']:.0e}", f"{each['smallest_cosine']:.3f}"
                name = model.rpartition("/")[2]
                table.add_row(name, form, f"{each['one_ms']:.1f}", one, f"{each['rows_per_s']:.0f}", many, *differs)
        shown.append(table)
    if "features" in results:
        table = Table(title=f"Stage `features`, {MODELS[0].rpartition('/')[2]}, CPU time", title_style="bold")
        for column in ("form", "a row alone, ms", "in the stage, ms", "share", "to start, s"):
            table.add_column(column, justify="left" if column == "form" else "right")
        for form, each in results["features"].items():
            costs = (f"{each[name]:.2f}" for name in ("bare_cpu_ms", "stage_cpu_ms"))
            table.add_row(form, *costs, f"{each['share']:.0%}", f"{each['start_cpu_s']:.1f}")
        shown.append(table)
    if "threads" in results:
        table = Table(title=f"Processes x threads, {MODELS[0].rpartition('/')[2]}, by the clock", title_style="bold")
        for column in ("form", "processes x threads", "rows/s", "CPU ms/row", "vs 1 x 2", "least", "most"):
            table.add_column(column, justify="left" if column == "form" else "right")
        for form, found in results["threads"].items():
            for shape, each in found.items():
                ratios = (f"{each[name]:.2f}x" for name in ("against_first", "least", "most"))
                table.add_row(form, shape, f"{each['rows_per_s']:.0f}", f"{each['cpu_ms']:.2f}", *ratios)
        shown.append(table)
    return shown


def main() -> None:
    """Measure, print, and write if asked."""
    parts: dict[str, Callable[[Sequence[str], Path], dict[str, Any]]] = {
        "encoders": encoders,
        "features": features,
        "threads": threads,
    }
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--only", choices=list(parts), action="append", help="parts to measure; all without it")
    parser.add_argument(
        "--texts", type=int, default=0, help="sentences; 0: 64 for `encoders`, 512 for `threads`, else 8,000"
    )
    parser.add_argument("--write", action="store_true", help=f"write the figures to {RESULTS}")
    arguments = parser.parse_args()
    texts = [record.text for record in read_reviews(arguments.assets) if record.text]
    random.Random(0).shuffle(texts)
    results, console = {}, Console(width=140)
    for part in arguments.only or parts:
        count = arguments.texts or {"encoders": 64, "threads": 512, "features": 8_000}[part]
        results[part] = parts[part](texts[:count], arguments.assets.absolute())
        for table in tables({part: results[part]}):
            console.print(table)
    if arguments.write:
        written = json.loads(RESULTS.read_text(encoding="utf-8"))["parts"] if RESULTS.exists() else {}
        content = {"machine": {**machine(), "cores": os.cpu_count()}, "parts": written | results}
        RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
