"""What a search tries, what it says beforehand, and what is recorded of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.stages import tune
from pipelines.stages.tune import Tune, search_space
from pipelines.training.artefacts import REACHED
from pipelines.training.trial import Choice


@pytest.mark.parametrize(
    ("more", "rates"),
    [
        ({"learner": {"name": "replay"}}, (0.0003, 0.001, 0.003)),
        ({"train": {"optimizer": "sgd"}, "learner": {"name": "replay"}}, (0.03, 0.1, 0.3)),
        (
            {"tune": {"learning_rates": [7, 8]}, "train": {"optimizer": "sgd"}, "learner": {"name": "replay"}},
            (7.0, 8.0),
        ),
        ({"train": {"optimizer": "sgd", "sgd_rate": 9.0}, "learner": {"name": "slda"}}, (9.0,)),
        ({"train": {"learning_rate": 0.9}, "learner": {"name": "analytic"}}, (0.9,)),
    ],
    ids=["adamw", "sgd", "own", "slda", "analytic"],
)
def test_searched_rates_belong_to_the_chosen_optimiser(more, rates) -> None:
    """Promise: the rates that are searched are those of the chosen optimiser."""
    assert space(more)["learning_rate"] == rates


@pytest.mark.parametrize(("tasks", "scopes"), [(("one",), ("global",)), (("one", "two"), ("global", "per_task"))])
def test_thresholds_per_task_are_searched_for_several_tasks(tasks: tuple[str, ...], scopes: tuple[str, ...]) -> None:
    tune = {"gates": ["confidence", "signals"], "scopes": ["global", "per_task"]}
    searched = space({"tune": tune}, tasks)
    assert (searched["gate"], searched["scope"]) == (("confidence", "signals"), scopes)


def space(more: dict[str, Any], tasks: tuple[str, ...] = ("one",)) -> dict[str, Any]:
    """What a run with these sections searches for KCM."""
    values = {"name": "a", "tasks": {}, "encoder": {"model": "e"}, "large": {"adapter": "recorded", "path": "l.csv"}}
    network = {"hidden": []}  # the closed forms are of a single layer
    config = parse_config(RunConfig, values | {"network": network} | more)
    features = SimpleNamespace(names=SimpleNamespace(tasks=tasks))
    learner = lambda name: config.learner.build(config.seed)  # noqa: E731
    return search_space(config.tune, SimpleNamespace(config=config, features=features, learner=learner), "kcm")


@pytest.mark.parametrize(("goal", "gate"), [("calls", "confidence"), ("accuracy", "signals")])
def test_the_goal_ranks_trials_that_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goal: str, gate: str
) -> None:
    """Promise: of trials that take steps too, the best by `tune.goal` is written."""
    values = {"name": "a", "tasks": {}, "encoder": {"model": "e"}, "large": {"adapter": "recorded", "path": "l.csv"}}
    config = parse_config(RunConfig, values | {"learner": {"name": "replay"}, "tune": {"goal": goal}})
    choice = Choice(learning_rate=0.1, large_weight=0.5, judge_weight=0.5, gate="confidence", scope="global")
    trials = [
        {"params": vars(choice) | {"gate": gate}} | dict.fromkeys(REACHED, 0.5) | reached
        for gate, reached in (("confidence", {"forecast": 0.6}), ("signals", {"forecast_accuracy": 0.6}))
    ]
    written: list[dict[str, Choice]] = []
    monkeypatch.setattr(tune.extras, "load", lambda *_: lambda *_, **__: trials)
    monkeypatch.setattr(tune, "run_remotely", lambda function, plan, folder, best: written.append(best))
    features: Any = SimpleNamespace(names=SimpleNamespace(tasks=("one",)))
    context = SimpleNamespace(cached={}, cluster=config.cluster, reporter=SimpleNamespace(say=lambda line: None))
    attempt: Any = SimpleNamespace(context=context, folder=tmp_path, storage=None)
    names = config.model_copy(update={"collaborators": ("kcm",)})
    Tune.of(config).write(attempt, features, features, SimpleNamespace(config=names))  # type: ignore[arg-type]
    assert written[0]["kcm"].gate == gate
