"""TRACER on texts whose gold labels play the teacher: share of fresh rows kept, and agreement on the kept rows.

    python -m venv tracer && tracer/bin/pip install tracer-llm==0.3.3
    tracer/bin/python benchmarks/rivals/run_tracer.py --features FOLDER [--only banking77] [--json FILE]

FOLDER has NAME.npz with `features` [N, D], `labels` [N] and `fresh` [N] (bool); `python benchmarks/label.py --only
tracer --features FOLDER` writes them. TRACER fits on all rows that are not fresh, with the defaults of its command
`tracer fit` (linear models and MLPs; trees are opt-in) at one target. The router it saves answers the fresh rows.
Source: TRACER, arXiv 2604.14531.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tracer
from tables import report

TREES = ("dt", "rf", "et", "gbt")  # what `tracer fit` leaves out unless --trees is given


def measured(name: str, file: Path, target: float) -> dict[str, Any]:
    """One table at one target of agreement."""
    data = np.load(file)
    fresh_rows = data["fresh"]
    features, labels = data["features"], data["labels"]
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        traces = Path(folder) / "traces.jsonl"
        rows = ({"input": str(row), "teacher": str(labels[row])} for row in np.flatnonzero(~fresh_rows))
        traces.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        config = tracer.FitConfig(
            target_teacher_agreement=target, frontier_targets=(target,), skip_candidates=TREES, verbose=False
        )
        result = tracer.fit(traces, Path(folder) / "policy", embeddings=features[~fresh_rows], config=config)
        figures: dict[str, Any] = {
            "rival": "TRACER 0.3.3",
            "table": name,
            "target": target,
            "fit": int((~fresh_rows).sum()),
            "fresh": int(fresh_rows.sum()),
            "method": result.manifest.selected_method,
        }
        if result.manifest.selected_method is None:
            return figures | {"kept": 0.0}
        routed = tracer.load_router(Path(folder) / "policy").predict_batch(features[fresh_rows])
    handled = np.asarray(routed["handled"])
    is_right = np.asarray(routed["labels"], dtype=object) == labels[fresh_rows].astype(object)
    return figures | {
        "kept": round(float(handled.mean()), 4),
        "agreement": round(float(is_right[handled].mean()), 4),
        "cpu_s": round(time.process_time() - started, 1),
    }


def all_measured(options: Any) -> Iterator[dict[str, Any]]:
    for name in options.only:
        for target in options.targets:
            yield measured(name, options.features / f"{name}.npz", target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=["banking77", "clinc150"])
    parser.add_argument("--targets", type=float, nargs="*", default=[0.9, 0.95])
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    report(all_measured(options), options.json)
