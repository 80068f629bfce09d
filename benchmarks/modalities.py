"""What the cascade reaches on pictures, each row by one command.

    kcm assets emoji fashion-mnist efficientnet-lite2
    python benchmarks/modalities.py emoji [--write]                  jobs/configs/vision.yaml
    python benchmarks/modalities.py emoji-pixels [--write]           the same, with pixels for the small side
    python benchmarks/modalities.py fashion-long-tail [--write]      KCM and MCM over ten seeds
    kcm assets tuxpaint openclipart
    python benchmarks/modalities.py retrieval [--write]              jobs/configs/image_text.yaml, both ways

`--write` puts the row into benchmarks/results/modalities.json. What a run has finished lies in --storage.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from machine import machine
from rich.console import Console
from rich.pretty import pprint

from jobs.benchmark import DEFAULT_SETTINGS
from jobs.benchmark_view import ProgressBars
from kcm.cascade.frontier import Frontier
from kcm.cascade.table import SPLITS
from kcm.config import load_config
from kcm.metrics.intervals import Interval, accuracy_interval, paired_difference
from kcm.retrieval.search import RetrievalConfig
from kcm.study import Settings, StudyConfig, run_study
from pipelines.artefact import Artefact, ArtefactStore
from pipelines.cluster import connected
from pipelines.config import RunConfig
from pipelines.evaluate import Judged, read_result
from pipelines.outcome_table import outcome_table
from pipelines.retrieval import retrieval as measure_retrieval
from pipelines.run import stages, walk_plan
from pipelines.stage import Context
from pipelines.tuned import Tuned

RESULTS = Path(__file__).parent / "results" / "modalities.json"
CONFIGS = Path(__file__).parents[1] / "jobs" / "configs"
MAX_LOSS = 0.01
PIXELS = ("encoder={kind: pixels, side: 24}",)


@dataclass(frozen=True)
class Places:
    """Where things lie."""

    storage: Path
    assets: Path


def emoji(places: Places, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Calls saved on emoji at most a point below the large model: the threshold from validate, the figures on test."""
    started = time.perf_counter()
    paths = [f"storage_path={places.storage}", f"assets_path={places.assets}"]
    config = load_config(RunConfig, CONFIGS / "vision.yaml", [*paths, *overrides])
    context = Context(config, ArtefactStore(config.storage_path))
    with connected(config.cluster):
        done = {}
        for stage, artefact in stages(context):
            done[stage] = artefact
            if stage == "evaluate":
                break
    measured = read_result(done["evaluate"])
    return {
        "small_encoder": config.encoder.name,
        "cached": all(context.cached.values()),
        "seconds": time.perf_counter() - started,
    } | {
        name: _at_a_point_lost(context, done, name)
        | {key: measured[name]["overall"][key] for key in ("small_accuracy", "large_accuracy")}
        | {"area": measured[name]["routing"]["apgr"], "deployed": measured[name]["overall"]}
        for name in config.collaborators
    }


def _at_a_point_lost(context: Context, done: Mapping[str, Artefact], name: str) -> dict[str, Any]:
    plan, answer_names = walk_plan(context.config, done["tasks"], done["features"], done["outcomes"])
    found = Tuned.load(done["tune"].folder / name, plan, name)
    table, features_ND, encode_s = outcome_table(
        found.collaborator,
        done["features"].folder,
        done["outcomes"].folder,
        [task.name for task in plan.tasks],
        answer_names,
        SPLITS,
    )
    judged = Judged.of(found, table, features_ND, encode_s)
    validate, test = judged.rows("validate"), judged.rows("test")
    kept_N = test.score > Frontier.of(validate).cheapest(MAX_LOSS).threshold
    cascade_N = (kept_N & test.small_correct) | (~kept_N & test.large_correct)
    return {
        "calls_saved": _told(accuracy_interval(kept_N, test.group)),
        "difference": _told(paired_difference(cascade_N, test.large_correct, test.group)),
        "num_rows": len(kept_N),
    }


def _told(interval: Interval | None) -> dict[str, float]:
    assert interval is not None  # there are rows
    return asdict(interval)


def fashion_long_tail(places: Places, encoder: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Few-shot accuracy of KANs and of MLPs of as many parameters, class-incremental, paired over ten seeds."""
    run = load_config(RunConfig, CONFIGS / "fashion_long_tail.yaml", [f"assets_path={places.assets}"])
    study = StudyConfig.model_validate(
        {
            "tasks": run.tasks.model_dump(),
            "encoder": encoder or run.encoder.model_dump(),
            "networks": ("kan", "mlp"),
            "learners": ("replay",),
            "memory_per_class": (20,),
            "num_seeds": 10,
        }
    )
    with ProgressBars() as bars:
        result = run_study(study, Settings.load(DEFAULT_SETTINGS), places.assets, places.storage, bars)
    (difference,) = result["differences"]
    sizes = ("many", "medium", "few", "average_accuracy", "forgetting_first")
    return {
        "data": result["data"],
        "cells": {cell["network"]: {size: cell["aggregated"][size] for size in sizes} for cell in result["cells"]},
        "kan_minus_mlp": {size: difference[size] for size in sizes},
    }


def retrieval(places: Places) -> dict[str, Any]:
    """R@K of small, large and cascade, as deployed and within half of the pairs that large-only scores."""
    paths = [f"storage_path={places.storage}", f"assets_path={places.assets}"]
    return measure_retrieval(load_config(RunConfig, CONFIGS / "image_text.yaml", paths), RetrievalConfig())


ROWS: dict[str, Callable[[Places], dict[str, Any]]] = {
    "emoji": emoji,
    "emoji-pixels": lambda places: emoji(places, PIXELS),
    "fashion-long-tail": fashion_long_tail,
    "retrieval": retrieval,
}


def main() -> None:
    """Measure one row, print it, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--storage", type=Path, default=Path("storage/modalities"))
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--write", action="store_true", help=f"keep the row in {RESULTS.name}")
    arguments = parser.parse_args()
    measured = ROWS[arguments.row](Places(arguments.storage.absolute(), arguments.assets.absolute()))
    pprint(measured, console=Console(soft_wrap=True))
    if arguments.write:
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        rows = kept.get("rows", {}) | {arguments.row: measured | {"machine": machine()}}
        RESULTS.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
