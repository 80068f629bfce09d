"""Stage `tune`: searches gate, scope and training hyper-parameters for the best policy on validate.

A run that continues a sequence keeps its parent's choice: the networks learned on with it. Only the policy is searched.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import count, product
from pathlib import Path
from typing import Any

from kcm import extras
from kcm.cascade.search import TuneConfig
from kcm.certification.certificate import CertificateConfig
from pipelines.batch.mapping import run_remotely
from pipelines.cluster.config import is_connected
from pipelines.context import Attempt, Context
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import write_json
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import REACHED, TRIALS, TrainedArtefact, Tuned, TunedArtefact, standing
from pipelines.training.trial import Choice, Point, TrialPlan
from pipelines.training.worker import TrainerPlan

RATES = {"adamw": (3e-4, 1e-3, 3e-3), "sgd": (0.03, 0.1, 0.3)}  # peak rates to search by default, by optimizer


class Tune(Stage, Plan):
    """For each collaborator `<name>/`: state, gate and policy of its best trial; and all trials in `trials.json`."""

    stage, version, unit = "tune", 7, "trials"
    reads, writes = ("features", "outcomes", "trained"), TunedArtefact

    tune: TuneConfig
    certificate: CertificateConfig
    seed: int

    def write(
        self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact, trained: TrainedArtefact
    ) -> None:
        """Evaluate the points: on a cluster as trials of Ray Tune, otherwise one after the other in this process."""
        plan = TrainerPlan(trained.config, features, outcomes)
        trial_plan = TrialPlan(
            plan=plan,
            trained=trained,
            scratch=attempt.storage,
            max_loss=self.tune.allowed_loss(self.certificate.epsilon),
            certificate=self.certificate,
            novel_share=self.tune.novel_share or 0.0,
            goal=self.tune.goal,
            gpus=attempt.context.cluster.gpus_per_worker,
        )
        points = [
            Point(name, number, choice)
            for name in plan.config.collaborators
            for number, choice in enumerate(self._choices(plan, name))
        ]
        if is_connected() and not self.parent:
            search = extras.load("pipelines.training.search:search", "a search of trials")
            num_ended = count(1)
            reached = search(trial_plan, points, lambda: attempt.bar.update(next(num_ended), len(points)))
            run_remotely(write_best, trial_plan, points, reached, attempt.folder)
        else:
            run_remotely(evaluate_here, trial_plan, points, attempt.folder)

    def _choices(self, plan: TrainerPlan, name: str) -> Sequence[Choice]:
        """The parent's choice; or the whole space; or, of one that is larger, points drawn by the seed."""
        if self.parent:
            return [Choice(**self.parent.tuned.choice(name))]
        space = search_space(self.tune, plan, name)
        choices = [Choice(**dict(zip(space, values, strict=True))) for values in product(*space.values())]
        if plan.learner(name).closed_form or len(choices) <= self.tune.num_trials:
            return choices
        return random.Random(self.seed).sample(choices, self.tune.num_trials)

    def publish(self, artefact: TunedArtefact, context: Context) -> None:
        """Record every trial as a nested MLflow run: in every run, since an earlier one may have stopped before."""
        if context.tracking is None:
            return
        for trial in artefact.trials:
            name = f"{trial['collaborator']} {trial['number']}"
            metrics = {metric: trial[metric] for metric in REACHED}
            context.tracking.log_trial(name, f"{artefact.fingerprint}/{name}", trial["params"], metrics)


def evaluate_here(plan: TrialPlan, points: Sequence[Point], folder: Path) -> None:
    """Evaluate the points in this process, and write the best of each collaborator, and all trials."""
    best: dict[str, Tuned] = {}
    reached = []
    for point in points:
        tuned, before = plan.evaluate(point.collaborator, point.choice), best.get(point.collaborator)
        reached.append(tuned.figures)
        if before is None or standing(tuned.reached, plan.goal) > standing(before.reached, plan.goal):
            best[point.collaborator] = tuned
    _write(best, points, reached, folder)


def write_best(
    plan: TrialPlan, points: Sequence[Point], reached: Sequence[dict[str, float | None]], folder: Path
) -> None:
    """Write the best of each collaborator, and all trials, given what they have `reached`."""
    best: dict[str, int] = {}
    for number, point in enumerate(points):
        before = best.get(point.collaborator)
        if before is None or standing(reached[number], plan.goal) > standing(reached[before], plan.goal):
            best[point.collaborator] = number
    tuned = {name: plan.evaluate(name, points[number].choice) for name, number in best.items()}
    _write(tuned, points, reached, folder)


def _write(
    best: Mapping[str, Tuned], points: Sequence[Point], reached: Sequence[dict[str, float | None]], folder: Path
) -> None:
    for name, tuned in best.items():
        tuned.save(folder / name)
    trials = [
        {"number": point.number, "collaborator": point.collaborator, "params": asdict(point.choice)} | figures
        for point, figures in zip(points, reached, strict=True)
    ]
    write_json(folder / TRIALS, trials)


def search_space(config: TuneConfig, plan: TrainerPlan, name: str) -> dict[str, tuple[Any, ...]]:
    """The values of every dimension that matters to the collaborator of this name."""
    train, distill = plan.config.train, plan.config.distill
    training = {
        "learning_rate": config.learning_rates or RATES[train.optimizer],
        "large_weight": config.large_weights,
        "judge_weight": config.judge_weights,
    }
    if plan.learner(name).closed_form:  # as the stage `train` has trained it
        training = {
            "learning_rate": (train.peak_rate,),
            "large_weight": (distill.large_weight,),
            "judge_weight": (distill.judge_weight,),
        }
    return training | {
        "gate": config.gates,
        "scope": config.scopes if len(plan.features.names.tasks) > 1 else ("global",),
    }
