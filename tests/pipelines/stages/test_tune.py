"""What a search tries, what it says beforehand, and what is recorded of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kcm.cascade.policy import Goal
from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.stages.tune import Tune, evaluate_here, search_space, write_best
from pipelines.training.artefacts import REACHED, TRIALS
from pipelines.training.trial import Choice, Point


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
    config = config_of(more)
    return search_space(config.tune, plan_of(config, tasks), "kcm")


def config_of(more: dict[str, Any]) -> RunConfig:
    """A run with these sections; the closed forms are of a single layer."""
    values = {"name": "a", "tasks": {}, "encoder": {"model": "e"}, "large": {"adapter": "recorded", "path": "l.csv"}}
    return parse_config(RunConfig, values | {"network": {"hidden": []}} | more)


def plan_of(config: RunConfig, tasks: tuple[str, ...]) -> Any:
    """As much of a trainer's plan as a search space depends on."""
    features = SimpleNamespace(names=SimpleNamespace(tasks=tasks))
    learner = lambda name: config.learner.build(config.seed)  # noqa: E731
    return SimpleNamespace(config=config, features=features, learner=learner)


def test_points_are_drawn_by_the_seed() -> None:
    """Promise: a search by steps draws distinct points of its space, the same for every collaborator."""
    config = config_of({"learner": {"name": "replay"}, "tune": {"num_trials": 7}})
    plan: Any = plan_of(config, ("one", "two"))
    drawn = Tune.of(config)._choices(plan, "kcm")
    assert len(set(drawn)) == 7
    assert drawn == Tune.of(config)._choices(plan, "mcm")
    assert drawn != Tune.of(config.model_copy(update={"seed": 1}))._choices(plan, "kcm")


@pytest.mark.parametrize(("goal", "gate"), [("calls", "confidence"), ("accuracy", "signals")])
def test_the_goal_ranks_trials(tmp_path: Path, goal: Goal, gate: str) -> None:
    """Promise: the best by `tune.goal` is written, and by trials on a cluster it is the same as in one process."""
    reached = {"confidence": {"forecast": 0.6}, "signals": {"forecast_accuracy": 0.6}}
    choices = [Choice(0.1, 0.5, 0.5, name, "global") for name in ("confidence", "signals")]
    points = [Point(name, number, choice) for name in ("kcm", "mcm") for number, choice in enumerate(choices)]

    class Evaluated:
        """A trial that saves its gate."""

        def __init__(self, choice: Choice) -> None:
            self.gate = choice.gate
            self.reached = self.figures = dict.fromkeys(REACHED, 0.5) | reached[choice.gate]

        def save(self, folder: Path) -> None:
            folder.mkdir(parents=True)
            (folder / "gate").write_text(self.gate)

    plan: Any = SimpleNamespace(goal=goal, evaluate=lambda name, choice: Evaluated(choice))
    (here := tmp_path / "here").mkdir()
    (there := tmp_path / "there").mkdir()
    evaluate_here(plan, points, here)
    write_best(plan, points, [Evaluated(point.choice).figures for point in points], there)
    for folder in (here, there):
        assert [(folder / name / "gate").read_text() for name in ("kcm", "mcm")] == [gate, gate]
    assert (here / TRIALS).read_text() == (there / TRIALS).read_text()
