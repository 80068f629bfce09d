"""What the cascade reaches on pictures, each row by one command.

    kcm assets efficientnet-lite2
    python benchmarks/pictures.py emoji fashion-mnist
    python benchmarks/modalities.py emoji [--write]                  jobs/configs/vision.yaml
    python benchmarks/modalities.py fashion-long-tail [--write]      KANs and MLPs over ten seeds
    python benchmarks/pictures.py tuxpaint openclipart
    python benchmarks/modalities.py retrieval [--write]              jobs/configs/image_text.yaml, both ways

`--write` puts the row into benchmarks/results/modalities.json. What a run has finished lies in --storage.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.pretty import pprint

from benchmarks.machine import machine
from benchmarks.retrieval import retrieval as measure_retrieval
from benchmarks.script import CONFIGS, keep, options, read
from benchmarks.study.settings import DEFAULT_SETTINGS, Settings
from benchmarks.study.study import StudyConfig, over_seeds, run_study
from kcm.cascade.frontier import Frontier
from kcm.cascade.table import SPLITS
from kcm.config import load_config
from kcm.metrics.intervals import Interval, accuracy_interval, paired_difference
from pipelines.batch.outcome_table import ScoredTable, scored_parts
from pipelines.config import RunConfig
from pipelines.run import SEARCH, run_context
from pipelines.stages.evaluate import Evaluate
from pipelines.stages.stage import run_stages

FASHION_SETTINGS = Path(__file__).parent / "settings" / "fashion.yaml"
MAX_LOSS = 0.01
RETRIEVAL_SEEDS = range(3)


def emoji(storage: Path, assets: Path) -> dict[str, Any]:
    """Calls saved and accuracy lost on test rows: as deployed, and at the threshold that loses a point on validate."""
    started = time.perf_counter()
    paths = [f"storage_path={storage}", f"assets_path={assets}"]
    config = load_config(RunConfig, CONFIGS / "vision.yaml", paths)
    stages = [stage.of(config) for stage in (*SEARCH, Evaluate)]
    with run_context(config, stages) as context:
        artefacts = dict(run_stages(stages, context))
    result = artefacts["evaluate"].result
    return {
        "small_encoder": config.encoder.name,
        "cached": all(context.cached.values()),
        "seconds": time.perf_counter() - started,
    } | {
        name: {
            "deployed": result[name]["overall"],
            "certificate": result[name]["certificate"],
            "area": result[name]["routing"]["apgr"],
            "at_a_point_lost_on_validate": _at_a_point_lost(_scored(artefacts, name)),
        }
        for name in config.trained
    }


def _scored(artefacts: Mapping[str, Any], name: str) -> ScoredTable:
    tuned = artefacts["tune"].load(name)
    parts = scored_parts(tuned.collaborator, tuned.gate, artefacts["features"], artefacts["outcomes"], SPLITS)
    return ScoredTable.of(parts, tuned.gate, tuned.validate_scores, tuned.policy)


def _at_a_point_lost(score_table: ScoredTable) -> dict[str, Any]:
    validate, test = score_table.rows("validate"), score_table.rows("test")
    kept_N = test.score > Frontier.of(validate).cheapest(MAX_LOSS).threshold
    cascade_N = np.where(kept_N, test.small_correct, test.large_correct)
    return {
        "calls_saved": _interval(accuracy_interval(kept_N, test.group)),
        "difference": _interval(paired_difference(cascade_N, test.large_correct, test.group)),
        "num_rows": len(kept_N),
    }


def _interval(interval: Interval | None) -> dict[str, float]:
    assert interval is not None  # there are rows
    return asdict(interval)


def fashion_long_tail(storage: Path, assets: Path) -> dict[str, Any]:
    """Few-shot accuracy of KANs and of MLPs of as many parameters, class-incremental, paired over ten seeds."""
    run = load_config(RunConfig, CONFIGS / "fashion_long_tail.yaml", [f"assets_path={assets}"])
    study = StudyConfig(
        tasks=run.tasks,
        encoder=run.encoder,
        networks=("kan", "mlp"),
        learners=("replay",),
        memory_per_class=(20,),
        num_seeds=10,
    )
    settings = Settings.load(FASHION_SETTINGS).over(Settings.load(DEFAULT_SETTINGS))
    result = run_study(study, settings, assets, storage)
    (difference,) = result["differences"]
    sizes = ("many", "medium", "few", "average_accuracy", "forgetting_first")
    return {
        "data": {key: value for key, value in result["data"].items() if key != "rows_left_out"},
        "cells": {
            cell["network"]: {
                "learning_rate": cell["setting"]["train"]["learning_rate"],
                "num_parameters": cell["num_parameters"],
            }
            | {size: cell["aggregated"][size] for size in sizes}
            for cell in result["cells"]
        },
        "kan_minus_mlp": {size: difference[size] for size in sizes},
    }


def retrieval(storage: Path, assets: Path) -> dict[str, Any]:
    """R@1 of small, large and cascade, as certified and within half of the pairs that large-only scores, over seeds."""
    per_seed = []
    for seed in RETRIEVAL_SEEDS:
        # A storage for each: seeds share rows, and here nobody deploys any of them.
        paths = [f"storage_path={storage / f'seed-{seed}'}", f"assets_path={assets}", f"seed={seed}"]
        config = load_config(RunConfig, CONFIGS / "image_text.yaml", paths)
        per_seed.append({"seed": seed, "collaborators": measure_retrieval(config)})
    return {
        "over_seeds": {
            name: _over_seeds([run["collaborators"][name]["within_share"] for run in per_seed])
            for name in per_seed[0]["collaborators"]
        },
        "per_seed": per_seed,
    }


def _over_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    figures = ("small_recall_at_1", "large_recall_at_1", "cascade_recall_at_1", "pair_share")
    figures_over_seeds = {figure: over_seeds([run[figure] for run in runs]) for figure in figures}
    return figures_over_seeds | {"difference": over_seeds([run["difference"]["estimate"] for run in runs])}


ROWS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "emoji": emoji,
    "fashion-long-tail": fashion_long_tail,
    "retrieval": retrieval,
}


def main() -> None:
    """Measure one row, print it, and write it if --write is set."""
    parser = options(__doc__, assets=True, storage="storage/modalities", results="modalities")
    parser.add_argument("row", choices=ROWS)
    arguments = parser.parse_args()
    row = ROWS[arguments.row](arguments.storage.absolute(), arguments.assets.absolute())
    pprint(row, console=Console(soft_wrap=True))
    if arguments.write:
        rows = read("modalities").get("rows", {})
        keep("modalities", {"rows": rows | {arguments.row: row | {"machine": machine()}}})


if __name__ == "__main__":
    main()
