"""Stage `tune`: Ray Tune searches gate, scope and training hyper-parameters for the best policy on validate."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import ray
import torch
from ray import tune as ray_tune
from ray.tune.search.optuna import OptunaSearch
from rich.markup import escape

from kcm.cascade.search import TuneConfig
from kcm.certify.certificate import CertificateConfig
from kcm.errors import KcmError
from kcm.report.formats import duration
from pipelines.batch.mapping import run_remotely
from pipelines.cluster.config import CPUS_PER_TRIAL
from pipelines.context import Attempt, Context
from pipelines.progress import polled
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import write_json
from pipelines.store.features import FeaturesArtefact
from pipelines.store.files import StorageError
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.storage import Follower, Storage
from pipelines.training.artefacts import TRIALS, TrainedArtefact, TunedArtefact, standing
from pipelines.training.trial import Choice, TrialPlan
from pipelines.training.worker import TrainerPlan

OBJECTIVES = ("area", "calls_saved")
CERTIFIED_KEEP_RATE = "promised"
# What torn bytes and the classes of another version make of a pickle; a disk that fails is no reason to begin anew.
_UNREADABLE = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError)


class Trial(ray_tune.Trainable):
    """A trial; Tune reuses the actor for the next one, since a start costs more than most trials."""

    def setup(self, config: dict[str, Any], plan: TrialPlan | None = None, collaborator: str = "") -> None:
        """Store what all trials share."""
        assert plan is not None
        torch.set_num_threads(1)  # trials run side by side
        self._plan, self._collaborator, self._choice = plan, collaborator, config

    def step(self) -> dict[str, Any]:
        """Evaluate the choice; one step is the whole trial."""
        objectives = self._plan.evaluate(self._collaborator, Choice(**self._choice)).objectives()
        path = _results(self._plan.scratch) / f"{self.trial_id}.json"
        write_json(path, objectives)
        self._plan.scratch.keep(path)
        return objectives | {"done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next choice."""
        self._choice = new_config
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """No state: trained collaborators are on disk."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """No state."""


class Tune(Stage, Plan):
    """For each collaborator `<name>/`: state, gate and policy of its best trial; and all trials in `trials.json`."""

    stage, version, unit = "tune", 2, "trials"
    reads, writes = ("features", "outcomes", "trained"), TunedArtefact

    tune: TuneConfig
    certificate: CertificateConfig
    seed: int

    def needs_cluster(self, features: FeaturesArtefact, trained: TrainedArtefact, **reads: Any) -> bool:
        """Not for a few rows of learners that take no steps, whose gates are tried in this process."""
        return not trained.config.is_solved or not features.has_few_rows

    def write(
        self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact, trained: TrainedArtefact
    ) -> None:
        """Search for one collaborator after the other; for those that take no steps in one process, without trials."""
        context, scratch = attempt.context, attempt.storage
        plan = TrainerPlan.of(trained.config, features, outcomes)
        trial_plan = TrialPlan(
            plan=plan,
            features=features,
            outcomes=outcomes,
            trained=trained,
            scratch=scratch,
            max_loss=self.tune.allowed_loss(self.certificate.epsilon),
            certificate=self.certificate,
            novel_share=self.tune.novel_share or 0.0,
            workers=context.cluster.within_trials,
        )
        names = plan.config.collaborators
        stepped = [name for name in names if not plan.learner(name).closed_form]
        trials: dict[str, list[dict[str, Any]]] = {}
        if stepped:
            num_trials = self.tune.num_trials * len(stepped)
            at_once = context.cluster.concurrent_trials(ray.cluster_resources())
            trained_s = None if context.cached.get("train", True) else context.seconds["train"] / len(names)
            context.reporter.say(forecast(num_trials, at_once, trained_s))
            for name in stepped:
                follower = Follower(scratch, scratch.root / _search_name(name))
                with polled(attempt.bar, partial(_finished, scratch, follower, num_trials)):
                    trials[name] = _search(trial_plan, self, name, context, scratch)
                _mark_pareto(trials[name])
            best = {name: Choice(**max(mine, key=standing)["params"]) for name, mine in trials.items()}
            run_remotely(_write_best, trial_plan, attempt.folder, best)
        if solved := [name for name in names if name not in stepped]:
            trials |= run_remotely(_try_all, trial_plan, self.tune, attempt.folder, solved)
        write_json(attempt.folder / TRIALS, [trial for name in names for trial in trials[name]])

    def publish(self, artefact: TunedArtefact, context: Context) -> None:
        """Record every trial as a nested MLflow run: in every run, since an outage may have lost some."""
        if context.tracking is None:
            return
        for trial in artefact.trials:
            name = f"{trial['collaborator']} {trial['number']}"
            metrics = {metric: trial[metric] for metric in (*OBJECTIVES, CERTIFIED_KEEP_RATE)}
            context.tracking.log_trial(name, f"{artefact.fingerprint}/{name}", trial["params"], metrics)


def forecast(num_trials: int, at_once: int, trained_s: float | None) -> str:
    """What a search will take at most, in a line; `trained_s` are the seconds of one training, where they are known."""
    line = f"search: {num_trials} trials, {at_once} at a time; most train a collaborator anew"
    if trained_s is None:
        return line
    return f"{line}, which took {duration(trained_s)}: at most some {duration(trained_s * num_trials / at_once)}"


def _write_best(plan: TrialPlan, folder: Path, choices: Mapping[str, Choice]) -> None:
    """Write every collaborator's best choice."""
    for name, choice in choices.items():
        plan.write_best(folder / name, name, choice, plan.evaluate(name, choice))


def _try_all(
    plan: TrialPlan, config: TuneConfig, folder: Path, names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Evaluate all gates and scopes of collaborators in closed form, and write the best of each."""
    trials: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        points = list(gatings(config, plan.plan, name))
        evaluated = [plan.evaluate(name, Choice(**params)) for params in points]
        trials[name] = [
            {"number": number, "collaborator": name, "params": params} | evaluated[number].objectives()
            for number, params in enumerate(points)
        ]
        _mark_pareto(trials[name])
        best = max(range(len(points)), key=lambda number: standing(trials[name][number]))
        plan.write_best(folder / name, name, Choice(**points[best]), evaluated[best])
    return trials


def gatings(config: TuneConfig, plan: TrainerPlan, name: str) -> Iterator[dict[str, Any]]:
    """All points of the search space of a collaborator in closed form."""
    space = search_space(config, plan, name)
    for values in product(*space.values()):
        yield dict(zip(space, values, strict=True))


def _search(plan: TrialPlan, search: Tune, name: str, context: Context, storage: Storage) -> list[dict[str, Any]]:
    """Run a collaborator's trials that remain, and give all of them."""
    results = _tuner(plan, search, name, context, storage).fit()
    if results.errors:
        raise KcmError(f"{len(results.errors)} of {len(results)} trials failed: {results.errors[0]}", where="tune")
    found = [results[number] for number in range(len(results))]
    return [
        {"number": number, "collaborator": name, "params": result.config}
        | {objective: (result.metrics or {})[objective] for objective in (*OBJECTIVES, CERTIFIED_KEEP_RATE)}
        for number, result in enumerate(found)
    ]


def _tuner(plan: TrialPlan, search: Tune, collaborator: str, context: Context, storage: Storage) -> ray_tune.Tuner:
    """An interrupted search where there is one that can be read, else a new one."""
    config = search.tune
    with_plan = ray_tune.with_parameters(Trial, plan=plan, collaborator=collaborator)
    trainable = ray_tune.with_resources(with_plan, {"cpu": CPUS_PER_TRIAL})
    name, results, say = _search_name(collaborator), _results(storage), context.reporter.say
    if restored := restored_search(storage, name, results, trainable, context.run_folder, say):
        return restored
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = search_space(config, plan.plan, collaborator)
    searcher = OptunaSearch(  # with the space: a search that is killed before its first trial has no other
        OptunaSearch.convert_search_space({name: ray_tune.choice(values) for name, values in space.items()}),
        metric=list(OBJECTIVES),
        mode=["max"] * len(OBJECTIVES),
        seed=search.seed,
    )
    return ray_tune.Tuner(
        trainable,
        tune_config=ray_tune.TuneConfig(
            search_alg=searcher,
            num_samples=config.num_trials,
            max_concurrent_trials=context.cluster.concurrent_trials(ray.cluster_resources()),
            reuse_actors=True,
        ),
        run_config=ray_tune.RunConfig(
            name=name,
            storage_path=str(storage.root),
            # Tune would save every trial at its end, into this folder, which other nodes do not see.
            checkpoint_config=ray_tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )


def restored_search(
    storage: Storage,
    name: str,
    results: Path,
    trainable: type[ray_tune.Trainable],
    aside: Path,
    say: Callable[[str], None],
) -> ray_tune.Tuner | None:
    """The interrupted search of a name, None where there is none.

    An unreadable one is moved below `aside` with the results of its trials, and `say` receives one line.
    """
    folder = storage.root / name
    for each in (folder, results):  # another node may have begun
        storage.mirror(each)
    if not folder.exists():
        return None
    try:
        if ray_tune.Tuner.can_restore(str(folder)):
            return ray_tune.Tuner.restore(str(folder), trainable, resume_errored=True)
        reason = "it was cut off before it began"
    except _UNREADABLE as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    taken = len(list(aside.glob(f"{name}-unreadable-*")))
    kept = aside / f"{name}-unreadable-{taken + 1}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, kept)
    if results.exists():
        shutil.move(results, kept / "results")
    storage.drop([folder, results])
    say(escape(f"the interrupted search cannot be read ({reason}); it is kept in {kept}, and begins anew"))
    return None


def _search_name(collaborator: str) -> str:
    """The folder of a collaborator's search in the scratch."""
    return f"search-{collaborator}"


def _results(scratch: Storage) -> Path:
    """Where trials leave their objectives as they finish, for the driver's bar to count."""
    return scratch.root / "results"


def _finished(scratch: Storage, follower: Follower, num_trials: int) -> tuple[int, int] | None:
    """Trials that are finished, and all there will be; None where nobody can tell.

    Ray Tune writes the state of a search to this node: through its own client it would end at the first lost request.
    """
    follower.look()
    try:
        names = scratch.names(_results(scratch))
    except StorageError:  # the search will tell
        return None
    return sum(name.endswith(".json") for name in names), num_trials


def search_space(config: TuneConfig, plan: TrainerPlan, name: str) -> dict[str, tuple[Any, ...]]:
    """The values of every dimension that matters to the collaborator of this name."""
    train, distill = plan.config.train, plan.config.distill
    training = {
        "learning_rate": config.sgd_rates if train.optimizer == "sgd" else config.learning_rates,
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
        "scope": config.scopes if len(plan.tasks) > 1 else ("global",),
    }


def _mark_pareto(trials: list[dict[str, Any]]) -> None:
    """Mark the trials on the Pareto front of the objectives."""
    for trial in trials:
        trial["pareto"] = not any(
            all(other[name] >= trial[name] for name in OBJECTIVES)
            and any(other[name] > trial[name] for name in OBJECTIVES)
            for other in trials
        )
