"""What the cascade reaches on pictures, each row by one command.

    python tools/assets.py efficientnet-lite2
    python benchmarks/pictures.py emoji fashion-mnist
    python benchmarks/modalities.py emoji [--write]                  jobs/configs/vision.yaml, over ten splits
    python benchmarks/modalities.py fashion [--write]                Fashion-MNIST, over ten splits
    python benchmarks/modalities.py fashion-tail [--write]           the same with a long tail
    python benchmarks/pictures.py tuxpaint openclipart
    pip install examples/extension
    python benchmarks/modalities.py retrieval [--write]              examples/extension/image_text.yaml, both ways

`--write` puts the row into benchmarks/results/modalities.json. What a run has finished lies in --storage. The settings
of the rows over splits were written down before any of their test rows were read; nothing was tuned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from rich.console import Console
from rich.pretty import pprint

from benchmarks.machine import machine
from benchmarks.over_splits import NUM_SPLITS, by_class_size, cost_ratio, over_splits, summary
from benchmarks.pictures import PICTURES
from benchmarks.retrieval import aligned
from benchmarks.retrieval import retrieval as measure_retrieval
from benchmarks.script import CONFIGS, CONTROLS, keep, options, read
from benchmarks.study.seeds import mean_and_ends
from kcm.config import load_config
from pipelines.config import DEFAULT_LEARNING, RunConfig

FASHION = (
    *(f"{section}={json.dumps(values)}" for section, values in DEFAULT_LEARNING.items()),
    "tasks.source.split_column=null",
    "tasks.max_rows_per_task=1400",
    "tasks.long_tail=null",
    "tasks.fractions={train: 0.55, validate: 0, certify: 0.27, test: 0.18}",
)
FASHION_TAIL = (
    *FASHION,
    "learner.equal_classes=1",
    "tasks.long_tail={imbalance_factor: 50, n_max: 250}",
    "tasks.fractions={train: 0.4, validate: 0.15, certify: 0.25, test: 0.2}",
)
IMAGE_TEXT = CONFIGS.parents[1] / "examples" / "extension" / "image_text.yaml"
RETRIEVAL_SEEDS = 3
FIGURES = ("small_recall_at_1", "large_recall_at_1", "cascade_recall_at_1", "pair_share")


def emoji(storage: Path, assets: Path, splits: int) -> dict[str, Any]:
    """Emoji over splits, as configured."""
    return _cascade("vision.yaml", assets / "emoji" / PICTURES, (), storage, assets, splits)


def fashion(storage: Path, assets: Path, splits: int) -> dict[str, Any]:
    """Fashion-MNIST over splits, 1,400 pictures a task, all classes alike, by the learner of `kcm run`'s defaults."""
    return _cascade(
        "fashion_long_tail.yaml", _few_pictures(storage, assets), FASHION, storage / "fashion", assets, splits
    )


def fashion_tail(storage: Path, assets: Path, splits: int) -> dict[str, Any]:
    """Fashion-MNIST, train classes of 250 to 5 pictures, over splits: the same learner with equal class weights."""
    return _cascade(
        "fashion_long_tail.yaml", _few_pictures(storage, assets), FASHION_TAIL, storage / "tail", assets, splits
    )


def _few_pictures(storage: Path, assets: Path) -> Path:
    """The pictures that Fashion-MNIST publishes as test rows, which are split anew."""
    file = storage / "fashion-mnist-test.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pictures, is_test = assets / "fashion-mnist" / PICTURES, [("split", "=", "test")]
    pq.write_table(pq.read_table(pictures, columns=["id", "image", "label"], filters=is_test), file)
    return file


def _cascade(
    file: str, table: Path, overrides: Sequence[str], storage: Path, assets: Path, splits: int
) -> dict[str, Any]:
    """Calls and cost saved by every collaborator over splits, and accuracy by the size of classes."""
    places = [CONTROLS, f"assets_path={assets}", f"tasks.source.path={table}"]
    config = load_config(RunConfig, CONFIGS / file, [*overrides, *places])
    cells = list(over_splits(config, storage, by_class_size, splits))
    about = {"small_encoder": config.encoder.name, "cost_ratio": cost_ratio(config)}
    return about | summary(cells) | {"sizes": _over_sizes(cells)}


def _over_sizes(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """By collaborator and band the means over the splits that have classes in it."""
    frame = pd.DataFrame(
        {"name": name, "band": band, **right}
        for cell in cells
        for name, bands in cell["sizes"].items()
        for band, right in bands.items()
    )
    means = frame.groupby(["name", "band"], sort=False).mean()
    sizes: dict[str, Any] = {}
    for (name, band), right in means.iterrows():
        sizes.setdefault(name, {})[band] = right.to_dict()
    return sizes


def retrieval(storage: Path, assets: Path, seeds: int) -> dict[str, Any]:
    """R@1 of small, large and cascade within half of the pairs that large-only scores, over seeds."""
    per_seed = []
    for seed in range(seeds):
        # A storage for each: seeds share rows, and here nobody deploys any of them.
        paths = [CONTROLS, f"storage_path={storage / f'seed-{seed}'}", f"assets_path={assets}", f"seed={seed}"]
        heads = storage / f"heads-{seed}"
        paths += [f"encoder.head={heads / 'small'}", f"large.encoder.head={heads / 'large'}"]
        config = aligned(IMAGE_TEXT, [*paths, f"tasks.source.leave_out={heads / 'groups.json'}"])
        per_seed.append({"seed": seed, "collaborators": measure_retrieval(config)})
    return {
        "over_seeds": {
            name: _over_seeds([run["collaborators"][name] for run in per_seed]) for name in per_seed[0]["collaborators"]
        },
        "per_seed": per_seed,
    }


def _over_seeds(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    figures = {figure: [run[figure] for run in runs] for figure in FIGURES}
    figures["difference"] = [run["difference"]["estimate"] for run in runs]
    means = {figure: mean_and_ends(values, 0.0) for figure, values in figures.items()}
    return {figure: {"mean": mean, "interval": ends} for figure, (mean, *ends) in means.items()}


ROWS: dict[str, Callable[[Path, Path, int], dict[str, Any]]] = {
    "emoji": emoji,
    "fashion": fashion,
    "fashion-tail": fashion_tail,
    "retrieval": retrieval,
}


def main() -> None:
    """Measure one row, print it, and write it if --write is set."""
    parser = options(__doc__, assets=True, storage="storage/modalities", results="modalities")
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--splits", type=int, help=f"{NUM_SPLITS} by default; of retrieval {RETRIEVAL_SEEDS} seeds")
    arguments = parser.parse_args()
    splits = arguments.splits or (RETRIEVAL_SEEDS if arguments.row == "retrieval" else NUM_SPLITS)
    row = ROWS[arguments.row](arguments.storage.absolute(), arguments.assets.absolute(), splits)
    pprint(row, console=Console(soft_wrap=True))
    if arguments.write:
        rows = read("modalities").get("rows", {})
        keep("modalities", {"rows": rows | {arguments.row: row | {"machine": machine()}}})


if __name__ == "__main__":
    main()
