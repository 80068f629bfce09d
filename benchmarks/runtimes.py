"""What runtimes and precisions of encoders cost: torch, ONNX Runtime, bfloat16, int8.

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
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # as Ray gives an actor of one CPU; before torch is imported

import numpy as np
from machine import machine
from rich.console import Console
from rich.table import Table

from kcm.encoders import Encoder, TextEncoderConfig
from kcm.inputs.content import Content, contents
from kcm.tasks.readers.reviews import read_reviews

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
    return shown


def main() -> None:
    """Measure, print, and write if asked."""
    parts: dict[str, Callable[[Sequence[str], Path], dict[str, Any]]] = {
        "encoders": encoders,
    }
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--only", choices=list(parts), action="append", help="parts to measure; all without it")
    parser.add_argument("--texts", type=int, default=0, help="sentences; 0: 64 for `encoders`, else 8,000")
    parser.add_argument("--write", action="store_true", help=f"write the figures to {RESULTS}")
    arguments = parser.parse_args()
    texts = [record.text for record in read_reviews(arguments.assets) if record.text]
    random.Random(0).shuffle(texts)
    results, console = {}, Console(width=140)
    for part in arguments.only or parts:
        count = arguments.texts or {"encoders": 64}[part]
        results[part] = parts[part](texts[:count], arguments.assets.absolute())
        for table in tables({part: results[part]}):
            console.print(table)
    if arguments.write:
        written = json.loads(RESULTS.read_text(encoding="utf-8"))["parts"] if RESULTS.exists() else {}
        content = {"machine": {**machine(), "cores": os.cpu_count()}, "parts": written | results}
        RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
