"""What `kcm run` learns by where no learner is named, beside what it was before: plain replay under AdamW.

    python benchmarks/default_learner.py --clinc data_full.json [--write]

Both as they stand, nothing tuned: a KAN on validate rows of streams that no other result has (orders, classes of each
task, weights and memories), so that no test row is read for the choice. Finished cells are kept in --storage.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from continual_plan import HELD_OUT_SEED, DataSet, Row, data_sets
from machine import machine
from rich.console import Console
from rich.table import Table

from kcm.collaborator.collaborator import NetworkConfig
from kcm.learners import ReplayConfig
from kcm.learners.training.config import TrainConfig
from kcm.metrics.intervals import paired_over_seeds
from kcm.study import Records, Settings, read_data, run_cells
from kcm.study.study import plan
from pipelines.config import DEFAULT_LEARNING

RESULTS = Path(__file__).parent / "results" / "default_learner.json"
NAMES, MEMORIES = ("clinc", "clinc-tail", "reviews", "digits"), (2, 10)
# What a section gives that names its learner and nothing else.
BEFORE = {
    "network": NetworkConfig().model_dump(),
    "learner": ReplayConfig().model_dump(exclude={"name", "memory"}),
    "train": TrainConfig().model_dump(),
}
NOW = {**DEFAULT_LEARNING, "learner": {"batch_size": 256, "margin": 4.0}}


def measured(data: DataSet, num_seeds: int, storage: Path, assets: Path) -> dict[str, Any]:
    """Final average accuracy of both at every memory, on the validate rows of each held-out stream; and the gain."""
    found: dict[str, Any] = {}
    for memory in MEMORIES:
        study = data.study(
            Row("replay", memory, ("kan",)), score_on="validate", first_seed=HELD_OUT_SEED, num_seeds=num_seeds
        )
        read = read_data(study.tasks, assets, study.seeds, study.feature_columns, study.encoder.reads)
        streams = read.streams(study.encoder, assets, storage / "features", study.score_on)
        by_seed = dict(zip(study.seeds, streams, strict=True))
        accuracy: dict[str, list[float]] = {}
        for name, sections in (("before", BEFORE), ("now", NOW)):
            cells = plan(study, Settings({"default": sections}), streams[0].num_labels)
            records = run_cells(cells, by_seed, Records(storage / "cells"))
            accuracy[name] = [sum(record["R"][-1]) / len(record["R"][-1]) for record in records]
        gain = paired_over_seeds(accuracy["now"], accuracy["before"])
        assert gain is not None  # there are two streams or more
        found[f"{memory:g}"] = accuracy | {"gain": gain.estimate, "interval": [gain.low, gain.high]}
    return found


def show(results: dict[str, Any]) -> None:
    """The table for a person, in percent."""
    table = Table(title="final average accuracy on validate rows of held-out streams, KAN, no setting tuned")
    for heading in ("data", "rows a class", "replay, AdamW", "default now", "gain"):
        table.add_column(heading, justify="left" if heading == "data" else "right")
    for name, rows in results.items():
        for memory, row in rows.items():
            means = (f"{100 * sum(row[each]) / len(row[each]):.1f}" for each in ("before", "now"))
            low, high = (100 * end for end in row["interval"])
            table.add_row(name, memory, *means, f"{100 * row['gain']:+.1f} ({low:+.1f} to {high:+.1f})")
    Console(width=100).print(table)


def main() -> None:
    """Measure, print, and write down with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--num-seeds", type=int, default=3, help="held-out streams, two or more")
    parser.add_argument("--clinc", default="clinc/clinc_oos", metavar="FILE_OR_HUB_ID", help="CLINC150")
    parser.add_argument("--storage", type=Path, default=Path("storage/benchmark"))
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULTS.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wanted = arguments.only or NAMES
    results = {
        data.name: measured(data, arguments.num_seeds, arguments.storage, arguments.assets)
        for data in data_sets(arguments.clinc, None, arguments.storage)
        if data.name in wanted
    }
    show(results)
    if arguments.write:
        kept = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        kept |= results | {"machine": machine()}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
