"""Stage `tune`: searches gate, scope and training hyper-parameters for the best policy on validate.

A run that continues a sequence keeps its parent's choice: the networks learned on with it. Only the policy is searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Any

from kcm import extras
from kcm.cascade.search import TuneConfig
from kcm.certification.certificate import CertificateConfig
from pipelines.batch.mapping import run_remotely
from pipelines.context import Attempt, Context
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import write_json
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import REACHED, TRIALS, TrainedArtefact, TunedArtefact, standing
from pipelines.training.trial import Choice, TrialPlan
from pipelines.training.worker import TrainerPlan

RATES = {"adamw": (3e-4, 1e-3, 3e-3), "sgd": (0.03, 0.1, 0.3)}  # peak rates to search by default, by optimizer


class Tune(Stage, Plan):
    """For each collaborator `<name>/`: state, gate and policy of its best trial; and all trials in `trials.json`."""

    stage, version, unit = "tune", 6, "trials"
    reads, writes = ("features", "outcomes", "trained"), TunedArtefact

    tune: TuneConfig
    certificate: CertificateConfig
    seed: int

    def needs_workers(self, trained: TrainedArtefact, **reads: Any) -> bool:
        """For learners that take steps, whose trials train."""
        return not trained.config.is_solved

    def write(
        self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact, trained: TrainedArtefact
    ) -> None:
        """Search for one collaborator after the other; closed forms are evaluated in one process, without training."""
        context = attempt.context
        plan = TrainerPlan(trained.config, features, outcomes)
        trial_plan = TrialPlan(
            plan=plan,
            trained=trained,
            scratch=attempt.storage,
            max_loss=self.tune.allowed_loss(self.certificate.epsilon),
            certificate=self.certificate,
            novel_share=self.tune.novel_share or 0.0,
            goal=self.tune.goal,
            gpus=context.cluster.gpus_per_worker,
        )
        names = plan.config.collaborators
        if self.parent:
            chosen = {name: Choice(**self.parent.tuned.choice(name)) for name in names}
            trials = run_remotely(_try_chosen, trial_plan, chosen, attempt.folder)
            write_json(attempt.folder / TRIALS, trials)
            return
        stepped = [name for name in names if not plan.learner(name).closed_form]
        trials_by_name: dict[str, list[dict[str, Any]]] = {}
        if stepped:
            num_trials = self.tune.num_trials * len(stepped)
            num_ended = count(1)
            search = extras.load("pipelines.training.search:search", "a search of trials")
            for name in stepped:
                trials_by_name[name] = search(
                    trial_plan,
                    name,
                    search_space(self.tune, plan, name),
                    num_trials=self.tune.num_trials,
                    at_once=context.cluster.num_trials,
                    seed=self.seed,
                    ended=lambda: attempt.bar.update(next(num_ended), num_trials),
                )
            rank = partial(standing, goal=self.tune.goal)
            best = {name: Choice(**max(own_trials, key=rank)["params"]) for name, own_trials in trials_by_name.items()}
            run_remotely(_write_best, trial_plan, attempt.folder, best)
        if solved := [name for name in names if name not in stepped]:
            trials_by_name |= run_remotely(_try_all, trial_plan, self.tune, attempt.folder, solved)
        write_json(attempt.folder / TRIALS, [trial for name in names for trial in trials_by_name[name]])

    def publish(self, artefact: TunedArtefact, context: Context) -> None:
        """Record every trial as a nested MLflow run: in every run, since an earlier one may have stopped before."""
        if context.tracking is None:
            return
        for trial in artefact.trials:
            name = f"{trial['collaborator']} {trial['number']}"
            metrics = {metric: trial[metric] for metric in REACHED}
            context.tracking.log_trial(name, f"{artefact.fingerprint}/{name}", trial["params"], metrics)


def _try_chosen(plan: TrialPlan, choices: Mapping[str, Choice], folder: Path) -> list[dict[str, Any]]:
    """Evaluate one choice for each collaborator, and write it."""
    trials = []
    for name, choice in choices.items():
        best = plan.evaluate(name, choice)
        best.save(folder / name)
        reached = {objective: best.reached[objective] for objective in REACHED}
        trials.append({"number": 0, "collaborator": name, "params": best.choice} | reached)
    return trials


def _write_best(plan: TrialPlan, folder: Path, choices: Mapping[str, Choice]) -> None:
    """Write every collaborator's best choice."""
    for name, choice in choices.items():
        plan.evaluate(name, choice).save(folder / name)


def _try_all(
    plan: TrialPlan, config: TuneConfig, folder: Path, names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Evaluate all gates and scopes of collaborators in closed form, and write the best of each."""
    trials: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        space = search_space(config, plan.plan, name)
        points = (Choice(**dict(zip(space, values, strict=True))) for values in product(*space.values()))
        evaluated = [plan.evaluate(name, point) for point in points]  # of one state, since all are trained alike
        trials[name] = [
            {"number": number, "collaborator": name, "params": trial.choice}
            | {objective: trial.reached[objective] for objective in REACHED}
            for number, trial in enumerate(evaluated)
        ]
        max(evaluated, key=lambda trial: standing(trial.reached, plan.goal)).save(folder / name)
    return trials


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
