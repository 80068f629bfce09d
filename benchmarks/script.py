"""What the scripts of this folder share: options, files of results, and the settings of published figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
CONFIGS = Path(__file__).parents[1] / "jobs" / "configs"
REVIEWS = CONFIGS / "reviews.yaml"
# The demo's learner by AdamW: what was measured of learners that take steps, and of gates beside them, stays with it.
BY_STEPS = (
    "collaborators=[kcm, mcm]",
    "tasks.fractions={train: 0.40, validate: 0.15, certify: 0.27, test: 0.18}",
    "learner={name: replay, memory: 1000, batch_size: 64}",
    "network={}",
    "train={num_epochs: 10, learning_rate: 0.001, weight_decay: 0.1}",
    "distill={large_weight: 3.0, judge_weight: 0.5, keep_confidence: 0.98}",
    "tune={num_trials: 10, learning_rates: [0.0005, 0.001, 0.002], judge_weights: [0.0, 0.5]}",
)
CONTROLS = "collaborators=[kcm, mcm, linear]"
DATA = {
    "clinc": "data_full.json of CLINC150",
    "banking": "folder with train.csv and test.csv of BANKING77",
    "data": "folder with llm/*.csv, see benchmarks/label_tables.py",
}


def options(
    description: str | None,
    assets: bool = False,
    storage: str = "",
    results: str = "",
    data: Collection[str] = (),
    features: str = "",
    only: Collection[str] = (),
) -> argparse.ArgumentParser:
    """A parser with --assets; a name of DATA is a required option, and `only` are the parts that --only chooses from.

    --storage and --features (these defaults) and --write (into this file) exist if they are named.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if assets:
        parser.add_argument("--assets", type=Path, default=Path("assets"))
    if storage:
        parser.add_argument("--storage", type=Path, default=Path(storage), help="what finished work is kept in")
    if features:
        parser.add_argument("--features", type=Path, default=Path(features), help="where features are kept")
    for name in data:
        parser.add_argument(f"--{name}", type=Path, required=True, help=DATA[name])
    if only:
        parser.add_argument("--only", choices=list(only), nargs="*", default=list(only), metavar="NAME")
    if results:
        parser.add_argument("--write", action="store_true", help=f"put the figures into {results}.json")
    return parser


def require(module: str, package: str) -> Any:
    """An optional package's module; without it the script ends in one line that says what to install."""
    try:
        return import_module(module)
    except ImportError:
        raise SystemExit(f"error: no module {module}: run `pip install {package}`") from None


def read(name: str) -> dict[str, Any]:
    """A committed file of results; empty if it does not exist."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def keep(name: str, figures: Mapping[str, Any]) -> None:
    """Put figures into a committed file of results, in the place of earlier ones of the same names."""
    write(RESULTS / f"{name}.json", read(name) | dict(figures))


def write(file: Path, figures: Mapping[str, Any]) -> None:
    """Write figures as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
