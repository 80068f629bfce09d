"""KCM against its controls on the demo's reviews, over seeds.

    kcm run jobs/configs/reviews.yaml
    kcm run jobs/configs/reviews.yaml --until outcomes \
        --set "tasks.fractions={train: 0.40, validate: 0.15, certify: 0.27, test: 0.18}"
    python benchmarks/routing.py --storage storage [--write]

`--storage` is the storage path of both runs; the second is for networks that take steps, which need validate rows.
"""

from __future__ import annotations

import sys
import time
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from rich.pretty import pprint
from script import BY_STEPS, REVIEWS, keep, options
from study.seeds import interval_of, paired_over_seeds

from kcm.cascade.frontier import Frontier
from kcm.cascade.table import SPLITS
from kcm.certification.certificate import certify_policy
from kcm.certification.ledger import question_delta
from kcm.config import load_config
from kcm.errors import KcmError
from kcm.learners.training.stream import ParquetRows
from kcm.learners.training.trainer import Trainer
from pipelines.config import RunConfig
from pipelines.stages.evaluate import scored_table
from pipelines.store.artefact import Artefact, ArtefactStore
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.sequence import SequenceArtefact
from pipelines.training.artefacts import Tuned, standing
from pipelines.training.trial import Choice, TrialPlan
from pipelines.training.worker import TrainerConfig, TrainerPlan

NUM_SEEDS = 10
_OF_SEED = ("area", "calls_saved", "points_lost")


def artefacts(storage: Path, stage: str, holding: str = "") -> list[Artefact]:
    """The artefacts of `stage` in the storage that hold a file of this name, the newest first; at least one."""
    matches = [artefact for artefact in ArtefactStore(storage).finished(stage) if (artefact.folder / holding).exists()]
    if not matches:
        raise KcmError(f"no artefact of stage {stage!r} with {holding}", where=str(storage))
    return matches


def kcm_mcm(storage: Path) -> dict[str, Any]:
    """The demo on test over 10 seeds of projections, initial weights and orders of tasks, KCM less each control.

    `area` is that under the deferral curve; `calls_saved` and `points_lost` are those of what is deployed after a first
    look at the certify rows, its gate and threshold chosen as the demo chooses them. `by_steps` is the same of networks
    that replay trains with one point of the search, MCM's an MLP, and `kcm_minus_mlp` the demo's KCM less that MLP.
    """
    solved = _over_seeds(storage, "solved", "collaborators=[kcm, mcm, linear]")
    cells = _over_seeds(storage, "trained", *BY_STEPS)
    less_mlp = {
        figure: interval_of(paired_over_seeds(solved[figure]["kcm"], cells[figure]["mcm"])) for figure in _OF_SEED
    }
    return {"seeds": NUM_SEEDS, **_kcm_less(solved), "by_steps": _kcm_less(cells), "kcm_minus_mlp": less_mlp}


def _over_seeds(storage: Path, how: Literal["solved", "trained"], *overrides: str) -> pd.DataFrame:
    """A row a seed, a column for every figure and collaborator."""
    config = load_config(RunConfig, REVIEWS, list(overrides))
    features, outcomes = _rows_for(how, storage)
    rows: list[dict[str, Any]] = []
    tasks = [
        ParquetRows(task, features.fetched(number), outcomes.fetched(number))
        for number, task in enumerate(features.names.tasks)
    ]
    for seed in range(NUM_SEEDS):
        order = np.random.default_rng(seed).permutation(len(tasks))
        configured = {name: getattr(config, name) for name in TrainerConfig.model_fields} | {"seed": seed}
        plan = TrainerPlan(TrainerConfig(**configured), features, outcomes)
        for name in config.collaborators:
            collaborator, ordered_tasks = plan.collaborator(name), [tasks[i] for i in order]
            trainer = Trainer(collaborator, plan.learner(name), ordered_tasks, config.train, config.distill, seed=seed)
            trainer.run()
            tuned = _tuned(plan, config, name, trainer.state_dict())
            score_table = scored_table(tuned, features, outcomes)
            validate, certify_rows, test = (score_table.rows(split) for split in SPLITS)
            first_look = question_delta(config.certificate.delta, 1)
            policy, _ = certify_policy(validate, certify_rows, tuned.policy, config.certificate, delta=first_look)
            keeps_N = policy.keep(test.score, test.task)
            cascade_N = np.where(keeps_N, test.small_correct, test.large_correct)
            loss = 100 * float(test.large_correct.mean() - cascade_N.mean())
            figures = (Frontier.of(test).area(), float(keeps_N.mean()), loss)
            rows.append({"seed": seed, "name": name} | dict(zip(_OF_SEED, figures, strict=True)))
    return pd.DataFrame(rows).pivot(index="seed", columns="name")


def _rows_for(how: Literal["solved", "trained"], storage: Path) -> tuple[FeaturesArtefact, OutcomesArtefact]:
    """The newest run whose splits fit: learners that take steps need validate rows, the others have none."""
    feature_sets = [artefact.as_a(FeaturesArtefact) for artefact in artefacts(storage, "features")]
    fitting = [
        feature_set for feature_set in feature_sets if (feature_set.num_rows("validate") > 0) == (how == "trained")
    ]
    if not fitting:
        raise KcmError(f"no run for collaborators that are {how}", where=str(storage))
    features = min(
        fitting, key=lambda feature_set: feature_set.dim
    )  # the collaborator's; the large model's vectors are wider
    outcome_sets = (artefact.as_a(OutcomesArtefact) for artefact in artefacts(storage, "outcomes", "large.json"))
    sequence = features.sequence.path
    return features, next(
        outcome_set for outcome_set in outcome_sets if outcome_set.source(SequenceArtefact, "tasks").path == sequence
    )


def _tuned(plan: TrainerPlan, config: RunConfig, name: str, state: dict[str, Any]) -> Tuned:
    """Gate and policy of a trained collaborator: the best of all gates and scopes on the rows that choose."""
    training: Any = SimpleNamespace(state=lambda name: state)
    scratch: Any = None  # nothing is trained
    max_loss = config.tune.allowed_loss(config.certificate.epsilon)
    trials = TrialPlan(plan, training, scratch, max_loss, config.certificate)
    weights = config.distill.large_weight, config.distill.judge_weight
    ways = product(config.tune.gates, config.tune.scopes)
    choices = [Choice(config.train.peak_rate, *weights, gate, scope) for gate, scope in ways]
    return max((trials.evaluate(name, choice) for choice in choices), key=lambda tuned: standing(tuned.reached))


def _kcm_less(frame: pd.DataFrame) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for figure in _OF_SEED:
        by = frame[figure]
        differences = {
            f"kcm_minus_{control}": interval_of(paired_over_seeds(by["kcm"], by[control]))
            for control in by
            if control != "kcm"
        }
        figures[figure] = differences | by.mean().to_dict()
    return figures


def main() -> None:
    """Print the figures, and write them into the results with `--write`."""
    parser = options(__doc__, results="routing")
    parser.add_argument("--storage", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    started = time.perf_counter()
    try:
        figures = kcm_mcm(arguments.storage)
    except KcmError as error:
        sys.exit(f"error: {error}")
    pprint({"kcm_mcm": figures, "seconds": round(time.perf_counter() - started)})
    if arguments.write:
        keep("routing", {"kcm_mcm": figures})


if __name__ == "__main__":
    main()
