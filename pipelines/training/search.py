"""The search on a cluster: Ray Tune runs the trials, as many at once as the cluster has room for.

Every point is drawn before the first trial starts, so the winner does not depend on how many run concurrently.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from ray import tune as ray_tune

from kcm.errors import KcmError
from pipelines.training.artefacts import REACHED
from pipelines.training.trial import Point, TrialPlan


class Trial(ray_tune.Trainable):
    """A trial; Tune reuses the actor for the next one, since a start costs more than most trials."""

    def setup(self, config: dict[str, Any], plan: TrialPlan | None = None, points: Sequence[Point] = ()) -> None:
        """Store what all trials share; `config` holds the number of a point."""
        assert plan is not None
        torch.set_num_threads(1)  # trials run side by side
        self._plan, self._points, self._number = plan, points, config["number"]

    def step(self) -> dict[str, Any]:
        """Evaluate the point; one step is the whole trial."""
        return self._plan.figures_of(self._points[self._number]) | {"done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next point."""
        self._number = new_config["number"]
        return True


def search(plan: TrialPlan, points: Sequence[Point], ended: Callable[[], None]) -> list[dict[str, Any]]:
    """What each point has reached, in the order of the points; `ended` is called after each trial.

    An interrupted search goes on: figures and trained networks of finished trials are in the scratch.
    """
    with_plan = ray_tune.with_parameters(Trial, plan=plan, points=points)
    with tempfile.TemporaryDirectory(prefix="kcm-") as folder:
        results = ray_tune.Tuner(
            ray_tune.with_resources(with_plan, {"cpu": 1, "gpu": plan.gpus}),
            param_space={"number": ray_tune.grid_search(list(range(len(points))))},
            tune_config=ray_tune.TuneConfig(reuse_actors=True),
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
    ended_trials = [results[position] for position in range(len(results))]
    reached = {(trial.config or {})["number"]: trial.metrics or {} for trial in ended_trials}
    return [{objective: reached[number][objective] for objective in REACHED} for number in range(len(points))]


class _Counting(ray_tune.Callback):
    """Tells when a trial has ended, in the process of the driver."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def on_trial_complete(self, *_: Any, **info: Any) -> None:
        self._ended()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes itself down, and no terminal can be pickled."""
        return {}
