"""Stage `tune`: Ray Tune searches gate, scope and training hyper-parameters for the best policy on validate."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray
import torch
from pydantic import Field
from ray import tune as ray_tune
from ray.tune.search.optuna import OptunaSearch
from rich.markup import escape
from safetensors.torch import save_file

from kcm.cascade.gate import GateName, distinct_gates
from kcm.cascade.search import Scope
from kcm.config import Config
from kcm.errors import KcmError
from kcm.large import PromptMode
from pipelines.cluster import CPUS_PER_TRIAL
from pipelines.context import Context
from pipelines.progress import Bar, polled
from pipelines.store.artefact import Artefact, Recipe, write_json
from pipelines.training.trial import Choice, TrialPlan
from pipelines.training.warm_start import SEARCH, TRIALS, best_first, first_points, last_search, space_of
from pipelines.training.worker import WalkPlan

VERSION = 2
OBJECTIVES = ("area", "calls_saved")
PROMISED = "promised"
# What torn bytes and the classes of another version make of a pickle; a disk that fails is no reason to begin anew.
_UNREADABLE = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError)


class TuneConfig(Config):
    """The search space; every list is a set of values to choose from, one value fixes it."""

    num_trials: int = Field(16, ge=1, description="Trials for each collaborator.")
    max_loss: float = Field(0.005, ge=0, lt=1, description="Accuracy that the searched threshold may lose on validate.")
    gates: tuple[GateName, ...] = Field(
        ("confidence", "deferral"),
        min_length=1,
        description="Gate scores: confidence, margin, entropy, deferral, or your own.",
    )
    scopes: tuple[Scope, ...] = Field(
        ("global", "per_task"), min_length=1, description="One threshold, or one per task."
    )
    deferral_weights: tuple[float, ...] = Field((0.0, 0.1), min_length=1, description="Prices of a large call.")
    large_weights: tuple[float, ...] = Field((0.0, 1.0, 3.0), min_length=1, description="Weights of L_ls.")
    judge_weights: tuple[float, ...] = Field((0.0, 0.5), min_length=1, description="Weights of L_js.")
    learning_rates: tuple[float, ...] = Field((3e-4, 1e-3, 3e-3), min_length=1, description="Peak learning rates.")
    warm_start: bool = Field(
        True, description="Try first what the last search of the same space on this storage found best."
    )
    prompt_modes: tuple[PromptMode, ...] = Field(
        ("none",),
        min_length=1,
        description="What escalated rows may be shown; beside none, each asks the large model once more for every row.",
    )


class Trial(ray_tune.Trainable):
    """A trial; the actor is used again for the next one, since a start costs more than most trials."""

    def setup(self, config: dict[str, Any], plan: TrialPlan | None = None) -> None:
        """Keep what all trials share."""
        assert plan is not None
        torch.set_num_threads(1)  # trials run side by side
        self._plan, self._choice = plan, Choice(**config)

    def step(self) -> dict[str, Any]:
        """Evaluate the choice; one step is the whole trial."""
        objectives = self._plan.evaluate(self._choice).objectives()
        write_json(_results(self._plan.scratch, self._plan.collaborator) / f"{self.trial_id}.json", objectives)
        return objectives | {"done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next choice."""
        self._choice = Choice(**new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing to keep: trained collaborators are on disk already."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to restore."""


def tune(
    context: Context, plan: WalkPlan, answer_names: Iterable[str], inputs: tuple[Artefact, Artefact, Artefact]
) -> Artefact:
    """For each collaborator `<name>/`: the state, gate and policy of its best trial; and all trials in `trials.json`.

    `inputs` are the artefacts of features, outcomes and train. `search.json` names the space, and the earlier search
    that this one started from: a hint, which the fingerprint does not cover.
    """
    features, outcomes, train = inputs
    config = context.config.tune
    section = {
        "tune": config.model_dump(mode="json", exclude={"prompt_modes", "warm_start"}),  # modes: see stage `prompts`
        "certificate": context.config.certificate.model_dump(mode="json"),
        "seed": context.config.seed,
    }
    recipe = Recipe("tune", VERSION, section, inputs)

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        trials: list[dict[str, Any]] = []
        earlier = last_search(context.store, space_of(context.config)) if config.warm_start else None
        for number, name in enumerate(plan.collaborators):
            trial_plan = TrialPlan(
                collaborator=name,
                plan=plan,
                answer_names=tuple(answer_names),
                features=features.folder,
                outcomes=outcomes.folder,
                trained=train.folder / f"{name}.pt",
                scratch=scratch,
                max_loss=config.max_loss,
                certificate=context.config.certificate,
                workers=context.config.cluster.within_trials,
            )
            points = first_points(earlier, name, max(1, config.num_trials // 2)) if earlier else []
            finished = partial(_finished, _results(scratch, name), number, len(plan.collaborators), config.num_trials)
            with polled(bar, finished):
                found = _search(trial_plan, context, scratch, points)
            _record(found, recipe.fingerprint, context)
            best = _best(found)
            _write_best(folder / name, trial_plan, Choice(**best["params"]))
            trials += found
        write_json(folder / TRIALS, trials)
        started = earlier.fingerprint if earlier else None
        write_json(folder / SEARCH, {"space": space_of(context.config), "started_from": started})

    return context.build(recipe, write, unit="trials")


def _search(plan: TrialPlan, context: Context, storage: Path, points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the trials that are left of one collaborator's search; a new one tries `points` first."""
    results = _tuner(plan, context, storage, points).fit()
    if results.errors:
        raise KcmError(f"{len(results.errors)} of {len(results)} trials failed: {results.errors[0]}", where="tune")
    return [
        {
            "number": number,
            "collaborator": plan.collaborator,
            "params": result.config,
            **{name: result.metrics[name] for name in (*OBJECTIVES, PROMISED)},
        }
        for number, result in enumerate(results)
    ]


def _tuner(plan: TrialPlan, context: Context, storage: Path, points: Sequence[dict[str, Any]]) -> ray_tune.Tuner:
    """An interrupted search where there is one that can be read, else a new one."""
    config, cluster = context.config.tune, context.config.cluster
    trainable = ray_tune.with_resources(ray_tune.with_parameters(Trial, plan=plan), {"cpu": CPUS_PER_TRIAL})
    name = f"tune-{plan.collaborator}"
    results, say = _results(storage, plan.collaborator), context.reporter.say
    if restored := restored_search(storage / name, results, trainable, context.run_folder, say):
        return restored
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = _space(config, plan)
    return ray_tune.Tuner(
        trainable,
        param_space={name: ray_tune.choice(values) for name, values in space.items()},
        tune_config=ray_tune.TuneConfig(
            search_alg=OptunaSearch(
                metric=list(OBJECTIVES),
                mode=["max"] * len(OBJECTIVES),
                seed=context.config.seed,
                points_to_evaluate=[point for point in points if _lies_in(space, point)],
            ),
            num_samples=config.num_trials,
            max_concurrent_trials=cluster.concurrent_trials(ray.cluster_resources()),
            reuse_actors=True,
        ),
        run_config=ray_tune.RunConfig(name=name, storage_path=str(storage), verbose=0),
    )


def restored_search(
    folder: Path, results: Path, trainable: type[ray_tune.Trainable], aside: Path, say: Callable[[str], None]
) -> ray_tune.Tuner | None:
    """The interrupted search of a folder, None where there is none.

    One that cannot be read is put below `aside` together with its trials' results, and `say` is told.
    """
    if not folder.exists():
        return None
    try:
        if ray_tune.Tuner.can_restore(str(folder)):
            return ray_tune.Tuner.restore(str(folder), trainable, resume_errored=True)
        reason = "it was cut off before it began"
    except _UNREADABLE as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    taken = len(list(aside.glob(f"{folder.name}-unreadable-*")))
    kept = aside / f"{folder.name}-unreadable-{taken + 1}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, kept)
    if results.exists():
        shutil.move(results, kept / "results")
    say(escape(f"the interrupted search cannot be read ({reason}); it is kept in {kept}, and begins anew"))
    return None


def _results(scratch: Path, collaborator: str) -> Path:
    """Where trials leave their objectives as they finish, for the driver's bar to count."""
    return scratch / "results" / collaborator


def _finished(results: Path, search: int, num_searches: int, num_trials: int) -> tuple[int, int]:
    """Trials that are finished, and all there will be, while search number `search` runs."""
    return search * num_trials + len(list(results.glob("*.json"))), num_searches * num_trials


def _record(trials: list[dict[str, Any]], fingerprint: str, context: Context) -> None:
    """Every trial as a nested MLflow run."""
    if context.tracking is None:
        return
    for trial in trials:
        name = f"{trial['collaborator']} {trial['number']}"
        metrics = {metric: trial[metric] for metric in (*OBJECTIVES, PROMISED)}
        context.tracking.log_trial(name, f"{fingerprint}/{name}", trial["params"], metrics)


def _space(config: TuneConfig, plan: TrialPlan) -> dict[str, tuple[Any, ...]]:
    """The values of every dimension, without what cannot matter.

    Over two labels the judge's own scores are all one order.
    """
    learning_rates, judge_weights = config.learning_rates, config.judge_weights
    if plan.plan.learner.closed_form:  # takes no steps, and its small model needs no anchor
        learning_rates, judge_weights = (plan.plan.train.learning_rate,), (plan.plan.distill.judge_weight,)
    return {
        "learning_rate": learning_rates,
        "large_weight": config.large_weights,
        "judge_weight": judge_weights,
        "gate": tuple(distinct_gates(config.gates, plan.plan.num_labels)),
        "scope": config.scopes if len(plan.plan.tasks) > 1 else ("global",),
        "deferral_weight": config.deferral_weights,
    }


def _lies_in(space: Mapping[str, Sequence[Any]], point: Mapping[str, Any]) -> bool:
    """Whether a point of another search is one of this space: rows may have brought a second task, or taken it away."""
    return point.keys() == space.keys() and all(point[name] in values for name, values in space.items())


def _best(trials: list[dict[str, Any]]) -> dict[str, Any]:
    """Mark the Pareto front, and give the trial of which a certificate should leave most."""
    for trial in trials:
        trial["pareto"] = not any(
            all(other[name] >= trial[name] for name in OBJECTIVES)
            and any(other[name] > trial[name] for name in OBJECTIVES)
            for other in trials
        )
    return dict(best_first(trials)[0])


def _write_best(folder: Path, plan: TrialPlan, choice: Choice) -> None:
    best = plan.evaluate(choice)
    folder.mkdir(parents=True)
    np.save(folder / "validate_scores.npy", best.scores)
    torch.save(plan.state(choice), folder / "state.pt")
    (folder / "policy.json").write_text(best.found.policy.model_dump_json(indent=2), encoding="utf-8")
    write_json(folder / "found.json", {"choice": asdict(choice)} | best.objectives())
    if best.gate.deferral is not None:
        save_file(best.gate.deferral.state_dict(), folder / "gate.safetensors")
