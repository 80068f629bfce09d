"""The search over trials that train: Ray Tune runs several concurrently."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import torch
from ray import tune as ray_tune
from ray.tune.search.optuna import OptunaSearch

from kcm.errors import KcmError
from pipelines.training.artefacts import OBJECTIVES, REACHED
from pipelines.training.trial import Choice, TrialPlan


class Trial(ray_tune.Trainable):
    """A trial; Tune reuses the actor for the next one, since a start costs more than most trials."""

    def setup(self, config: dict[str, Any], plan: TrialPlan | None = None, collaborator: str = "") -> None:
        """Store what all trials share."""
        assert plan is not None
        torch.set_num_threads(1)  # trials run side by side
        self._plan, self._collaborator, self._choice = plan, collaborator, config

    def step(self) -> dict[str, Any]:
        """Evaluate the choice; one step is the whole trial."""
        reached = self._plan.evaluate(self._collaborator, Choice(**self._choice)).reached
        return {objective: reached[objective] for objective in REACHED} | {"done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next choice."""
        self._choice = new_config
        return True


def search(
    plan: TrialPlan,
    name: str,
    values: Mapping[str, tuple[Any, ...]],
    *,
    num_trials: int,
    at_once: int,
    seed: int,
    ended: Callable[[], None],
) -> list[dict[str, Any]]:
    """Run a collaborator's trials over the `values` of every dimension; `ended` is called after each trial.

    An interrupted search begins again with the same points; their trained networks are still in the scratch.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with_plan = ray_tune.with_parameters(Trial, plan=plan, collaborator=name)
    space = {key: ray_tune.choice(choices) for key, choices in values.items()}
    with tempfile.TemporaryDirectory(prefix="kcm-") as folder:
        results = ray_tune.Tuner(
            ray_tune.with_resources(with_plan, {"cpu": 1, "gpu": plan.gpus}),
            param_space=space,
            tune_config=ray_tune.TuneConfig(
                search_alg=OptunaSearch(metric=list(OBJECTIVES), mode=["max"] * len(OBJECTIVES), seed=seed),
                num_samples=num_trials,
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(
                storage_path=folder,
                # Tune would save every trial at its end, into this folder, which other nodes do not see.
                checkpoint_config=ray_tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[_Counting(ended)],
                verbose=0,
            ),
        ).fit()
    if results.errors:
        raise KcmError(f"{len(results.errors)} of {len(results)} trials failed: {results.errors[0]}", where="tune")
    trial_results = [results[number] for number in range(len(results))]
    return [
        {"number": number, "collaborator": name, "params": result.config}
        | {objective: (result.metrics or {})[objective] for objective in REACHED}
        for number, result in enumerate(trial_results)
    ]


class _Counting(ray_tune.Callback):
    """Tells when a trial has ended, in the process of the driver."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def on_trial_complete(self, *_: Any, **info: Any) -> None:
        self._ended()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes itself down, and no terminal can be pickled."""
        return {}
