"""What distillation is worth: no teacher, the large model, the judge, or both; with all labels or few of them.

    kcm run jobs/configs/reviews.yaml
    python benchmarks/distillation.py --storage storage [--num-seeds 10] [--write]

Trains the demo's collaborators with the demo's settings, in this process. Labels are hidden by whole reviews, drawn
by the seed, and drawn anew where the first domain got none, which happens at 1%; the rows without one stay in the
stream, where only the teachers speak of them. Under `new` the last domain alone has no labels, and the others have all
of theirs; without a teacher nothing is learned of it. The large model is the demo's: mpnet with a linear head, which is
fitted anew to the labels that are left. A seed also draws the order of the tasks and the initial weights. Seeds that
are finished are kept and not trained again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from by_steps import BY_STEPS, REVIEWS
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from routing import Inputs, interval_of

from kcm.cascade.frontier import Frontier
from kcm.cascade.gate import Gate
from kcm.cascade.scored import ScoredOutcomes
from kcm.collaborator.collaborator import Collaborator, NetworkKind
from kcm.config import load_config
from kcm.inputs.labels import UNLABELLED
from kcm.large import fit_head
from kcm.learners.base import Batch
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import Trainer
from kcm.metrics.continual import summarise
from kcm.metrics.intervals import paired_over_seeds
from pipelines.config import RunConfig
from pipelines.store.features import FeaturesArtefact, feature_matrix

RESULTS = Path(__file__).parent / "results" / "distillation.json"
SHARES = (1.0, 0.1, 0.01)
NEW = "new"  # the last domain has no labels
LABELS = (*(f"{share:g}" for share in SHARES), NEW)
NETWORKS: tuple[NetworkKind, ...] = ("kan", "mlp")
TEACHERS = {"none": (False, False), "large": (True, False), "judge": (False, True), "both": (True, True)}
MEASURES = ("small_accuracy", "last_accuracy", "area", "forgetting_first")
LABEL_NAMES = ("negative", "positive")


@dataclass(frozen=True)
class Domain:
    """The rows of one task, train then test: what both encoders say, labels, groups."""

    name: str
    ids: list[str]
    is_train: NDArray[np.bool_]
    small_ND: NDArray[np.float32]
    large_NE: NDArray[np.float32]
    label_N: NDArray[np.int64]
    group_N: NDArray[np.object_]


def read_domains(inputs: Inputs) -> list[Domain]:
    """The tasks of the demo's run."""
    narrow, wide = features(inputs)
    domains = []
    for number in range(len(narrow.names.tasks)):
        small, large = ([each.task(number, split=s) for s in ("train", "test")] for each in (narrow, wide))
        names = [row_id for part in small for row_id in part["id"].to_pylist()]
        groups = [group for part in small for group in part["group"].to_pylist()]
        domains.append(
            Domain(
                name=f"task {number}",
                ids=names,
                is_train=np.repeat([True, False], [len(part) for part in small]),
                small_ND=np.concatenate([feature_matrix(part) for part in small]),
                large_NE=np.concatenate([feature_matrix(part) for part in large]),
                label_N=np.concatenate([part["label"].to_numpy() for part in small]),
                group_N=np.array([group or name for group, name in zip(groups, names, strict=True)], dtype=object),
            )
        )
    return domains


def features(inputs: Inputs) -> tuple[FeaturesArtefact, FeaturesArtefact]:
    """The features of the collaborator's encoder and of the large model's: of two artefacts, the narrower first."""
    found = [each.as_a(FeaturesArtefact) for each in inputs.artefacts("features")]
    narrow, wide = sorted(found, key=lambda each: each.dim)
    return narrow, wide


def streams(domains: Sequence[Domain], labels: str, seed: int) -> list[TensorRows]:
    """The tasks in the seed's order: the labels that `labels` names, and what a head fitted to these says of all."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(domains))
    if labels == NEW:
        fitted = [domain.is_train & (number != order[-1]) for number, domain in enumerate(domains)]
    else:
        fitted = _labelled(domains, float(labels), rng)
        while not fitted[order[0]].any():  # a trainer needs labels in its first task
            fitted = _labelled(domains, float(labels), rng)
    fit = fit_head(
        np.concatenate([domain.large_NE[rows] for domain, rows in zip(domains, fitted, strict=True)]),
        np.concatenate([domain.label_N[rows] for domain, rows in zip(domains, fitted, strict=True)]),
        np.concatenate([domain.group_N[rows] for domain, rows in zip(domains, fitted, strict=True)]).tolist(),
        len(LABEL_NAMES),
        seed=seed,
    )
    out_of_fold = np.split(fit.out_of_fold_NC, np.cumsum([rows.sum() for rows in fitted])[:-1])
    tasks = []
    for domain, rows, left_out_NC in zip(domains, fitted, out_of_fold, strict=True):
        large_NC = fit.head.probabilities(domain.large_NE)
        large_NC[rows] = left_out_NC
        given_N = np.where(domain.is_train & ~rows, UNLABELLED, domain.label_N)
        batch = Batch(
            torch.from_numpy(domain.small_ND),
            torch.from_numpy(given_N),
            torch.from_numpy(large_NC),
            torch.ones(len(rows)),
        )
        tasks.append(TensorRows(domain.name, {s: _split(domain, batch, s == "train") for s in ("train", "test")}))
    return [tasks[number] for number in order]


def _labelled(domains: Sequence[Domain], share: float, rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    """For each domain, the train rows of a drawn `share` of the reviews."""
    groups = np.unique(np.concatenate([domain.group_N for domain in domains]))
    drawn = groups[rng.random(len(groups)) < share]
    return [domain.is_train & np.isin(domain.group_N, drawn) for domain in domains]


def _split(domain: Domain, batch: Batch, train: bool) -> tuple[list[str], Batch]:
    rows = np.flatnonzero(domain.is_train == train)
    return [domain.ids[row] for row in rows], batch.take(torch.from_numpy(rows), torch.ones(len(rows)))


def measured(
    tasks: Sequence[TensorRows], config: RunConfig, network: Any, teachers: str, seed: int
) -> dict[str, float]:
    """What one trainer reaches on the test rows of all tasks."""
    large, judge = TEACHERS[teachers]
    weights = {
        "large_weight": config.distill.large_weight if large else 0.0,
        "judge_weight": config.distill.judge_weight if judge else 0.0,
    }
    trainer = Trainer(
        Collaborator(tasks[0].take("test", torch.tensor([0])).features.shape[1], 2, config.network, network, seed),
        config.learner.build(seed),
        tasks,
        config.train,
        config.distill.model_copy(update=weights),
        seed=seed,
    )
    trainer.run()
    parts = [task.take("test", torch.arange(task.num_rows("test"))) for task in tasks]
    with torch.inference_mode():
        judge_NC, small_NC = trainer.collaborator.eval()(torch.cat([part.features for part in parts]))
    label_N = torch.cat([part.labels for part in parts])
    rows = ScoredOutcomes(
        score=Gate().score(None, judge_NC.double().numpy()),
        small_correct=(small_NC.argmax(-1) == label_N).numpy(),
        large_correct=(torch.cat([part.large_probabilities for part in parts]).argmax(-1) == label_N).numpy(),
    )
    forgetting = summarise(trainer.accuracy["small"], trainer.baseline["small"])["forgetting_first"]
    assert forgetting is not None  # there are several tasks
    return {
        "small_accuracy": float(rows.small_correct.mean()),
        "last_accuracy": float(rows.small_correct[-len(parts[-1]) :].mean()),
        "area": Frontier.of(rows).area(),
        "forgetting_first": float(forgetting),
        "large_accuracy": float(rows.large_correct.mean()),
        "large_last_accuracy": float(rows.large_correct[-len(parts[-1]) :].mean()),
    }


def cells_of(domains: Sequence[Domain], config: RunConfig, labels: str, seed: int) -> dict[str, dict[str, float]]:
    """The cells of the table with these labels for one seed, by `labels/network/teachers`."""
    tasks = streams(domains, labels, seed)
    return {
        f"{labels}/{network}/{teachers}": measured(tasks, config, network, teachers, seed)
        for network in NETWORKS
        for teachers in TEACHERS
    }


def summarised(seeds: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Means over seeds, and what the teachers add to `none`, paired by seed with 95% intervals."""
    table: dict[str, Any] = {}
    for cell in next(iter(seeds.values())):
        alone = f"{cell.rpartition('/')[0]}/none"
        table[cell] = {
            measure: {
                "mean": float(np.mean(values := [found[cell][measure] for found in seeds.values()])),
                "over_none": interval_of(
                    paired_over_seeds(values, [found[alone][measure] for found in seeds.values()])
                ),
            }
            for measure in MEASURES
        } | {
            name: float(np.mean([found[cell][name] for found in seeds.values()]))
            for name in ("large_accuracy", "large_last_accuracy")
        }
    return table


def show(table: Mapping[str, Any], num_seeds: int) -> None:
    """The table for a person, in percent."""
    shown = Table(title=f"Small model after all tasks, {num_seeds} seeds; what teachers add to none, 95% intervals")
    for heading in ("labels", "network", "teachers"):
        shown.add_column(heading)
    for heading in ("accuracy %", "over none", "last domain %", "over none", "area %", "over none", "forgetting"):
        shown.add_column(heading, justify="right")
    for cell, figures in table.items():
        labels, network, teachers = cell.split("/")
        columns = []
        for measure in ("small_accuracy", "last_accuracy", "area"):
            over = figures[measure]["over_none"]
            columns += [
                f"{100 * figures[measure]['mean']:.1f}",
                "–" if teachers == "none" or over is None else _points(over),
            ]
        shown.add_row(
            labels if labels == NEW else f"{float(labels):.0%}",
            network,
            teachers,
            *columns,
            f"{100 * figures['forgetting_first']['mean']:+.1f}",
        )
    Console(width=160).print(shown)


def _points(over: Mapping[str, Any]) -> str:
    low, high = over["interval"]
    return f"{100 * over['estimate']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def main() -> None:
    """Train the seeds that are missing, print the table, and write it with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", type=Path, required=True, help="storage path of a finished run of reviews.yaml")
    parser.add_argument("--num-seeds", type=int, default=10)
    parser.add_argument("--write", action="store_true", help=f"keep the table in {RESULTS.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config, domains = (
        load_config(RunConfig, REVIEWS, BY_STEPS),
        read_domains(Inputs(None, arguments.storage, None, Path("assets"))),
    )
    kept = arguments.storage / "distillation.json"
    seeds = json.loads(kept.read_text()) if kept.exists() else {}
    for seed in track(range(arguments.num_seeds), "seeds"):
        cells = seeds.setdefault(str(seed), {})
        for labels in LABELS:
            if f"{labels}/kan/none" not in cells:
                cells |= cells_of(domains, config, labels, seed)
                kept.write_text(json.dumps(seeds))
    table = summarised(seeds)
    show(table, len(seeds))
    if arguments.write:
        RESULTS.write_text(json.dumps({"num_seeds": len(seeds), "table": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
