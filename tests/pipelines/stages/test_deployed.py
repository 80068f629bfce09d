"""Which collaborator is deployed: the better one on validate rows with `auto`, else the first of the configuration."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.stages.deployed import chosen
from pipelines.stages.evaluate import Evaluate
from pipelines.stages.train import Train
from tests.pipelines.runs import SIDES, SOURCE

RUN: dict[str, Any] = {"name": "reviews", "tasks": {"source": SOURCE}} | SIDES


def searched(goal: str = "calls", **reached: Mapping[str, float]) -> SimpleNamespace:
    """A search by this goal that left what `reached` says, in its order."""
    plan = SimpleNamespace(config=SimpleNamespace(collaborators=tuple(reached)))
    return SimpleNamespace(plan=plan, objectives=lambda name: reached[name], goal=goal)


def reached(
    forecast: float, calls_saved: float = 0.5, accuracy: float = 0.9, alone: tuple[float, ...] = (0.0,)
) -> dict[str, Any]:
    """Twenty draws move every forecast by up to 20 points together, and by `alone` each."""
    draws = np.linspace(-0.2, 0.2, 20) + np.resize(alone, 20)
    return {
        "forecast": forecast,
        "calls_saved": calls_saved,
        "area": 0.9,
        "forecast_low": forecast - 0.08,
        "forecast_high": forecast + 0.11,
        "forecast_accuracy": accuracy,
        "forecast_draws": {"keep_rates": forecast + draws, "accuracies": accuracy + draws / 10, "drawn_ratio": 0.5},
    }


ALONE = (0.1, -0.1)
LEVEL = "none of the others is better by two points and a standard error"


@pytest.mark.parametrize(
    ("kcm", "mcm", "best", "why"),
    [
        (reached(0.4), reached(0.5), "mcm", "is forecast to leave 50.0% (80% interval 42.0% to 61.0%) of the inputs"),
        (reached(0.5, 0.1), reached(0.4, 0.9), "kcm", "against 40.0% (80% interval 32.0% to 51.0%) with MCM"),
        (reached(0.4), reached(0.4), "kcm", "against 40.0%"),
        (reached(0.4), reached(0.43), "mcm", "against 40.0%"),  # in every draw, by as much
        (reached(0.4), reached(0.415), "kcm", LEVEL),  # in every draw, but by less than two points
        (reached(0.4), reached(0.43, alone=ALONE), "kcm", LEVEL),
        (reached(0.4, 0.6), reached(0.4, 0.7), "kcm", LEVEL),
    ],
)
def test_auto_deploys_kcm_unless_another_is_clearly_better(kcm, mcm, best, why) -> None:
    """Clearly: by two points and a standard error of the difference, which is paired by draw."""
    names, reason = chosen(searched(kcm=kcm, mcm=mcm), choose=True)
    assert names[0] == best
    assert set(names) == {"kcm", "mcm"}
    assert why in reason
    assert "saves" not in reason  # of rows that chose, and certified nothing


def test_goal_accuracy_deploys_the_more_accurate() -> None:
    """With `tune.goal: accuracy` the reason names the accuracy that a certificate should leave."""
    names, reason = chosen(
        searched("accuracy", kcm=reached(0.8, accuracy=0.8), mcm=reached(0.3, accuracy=0.9)), choose=True
    )
    assert names[0] == "mcm"
    assert "the certified cascade is forecast to be right on 90.0% with it, against 80.0% with KCM" in reason


def test_a_list_deploys_its_first() -> None:
    names, reason = chosen(searched(mcm=reached(0.1), kcm=reached(0.9)), choose=False)
    assert names == ["mcm", "kcm"]
    assert "names it first" in reason


def test_auto_trains_all_and_is_the_default() -> None:
    config = parse_config(RunConfig, RUN)
    assert Train.of(config).collaborators == ("kcm", "mcm", "quadratic", "linear")
    assert Evaluate.of(config).choose
    named = parse_config(RunConfig, RUN | {"collaborators": ["mcm", "kcm"]})
    assert Train.of(named).collaborators == ("mcm", "kcm", "linear")  # the control is in every run
    assert not Evaluate.of(named).choose
