"""KCM is deployed unless the configuration names another first; a control that is clearly better is a sentence."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.stages.controls import better_control
from pipelines.stages.train import Train
from tests.pipelines.runs import SIDES, SOURCE

RUN: dict[str, Any] = {"name": "reviews", "tasks": {"source": SOURCE}} | SIDES
FORMS = {"kcm": "quadratic", "mcm": "random ReLU", "linear": ""}


def searched(goal: str = "calls", **reached: Mapping[str, float]) -> Any:
    """A search by this goal that left what `reached` says, in its order."""
    return SimpleNamespace(
        plan=SimpleNamespace(config=SimpleNamespace(collaborators=tuple(reached))),
        objectives=lambda name: reached[name],
        goal=goal,
        load=lambda name: SimpleNamespace(collaborator=SimpleNamespace(name=name, form=FORMS[name])),
    )


def reached(forecast: float, accuracy: float = 0.9, alone: tuple[float, ...] = (0.0,)) -> dict[str, Any]:
    """Twenty draws move every forecast by up to 20 points together, and by `alone` each."""
    draws = np.linspace(-0.2, 0.2, 20) + np.resize(alone, 20)
    return {
        "forecast": forecast,
        "calls_saved": 0.5,
        "area": 0.9,
        "forecast_low": forecast - 0.08,
        "forecast_high": forecast + 0.11,
        "forecast_accuracy": accuracy,
        "forecast_draws": {"keep_rates": forecast + draws, "accuracies": accuracy + draws / 10, "drawn_ratio": 0.5},
    }


ALONE = (0.1, -0.1)


@pytest.mark.parametrize(
    ("kcm", "mcm", "said"),
    [
        (reached(0.4), reached(0.5), "leave it 50.0% (80% interval 42.0% to 61.0%) of the inputs, against 40.0%"),
        (reached(0.4), reached(0.42), "leave it 42.0%"),  # in every draw, by as much
        (reached(0.4), reached(0.405), None),  # in every draw, but by less than the distance rule costs
        (reached(0.5), reached(0.4), None),
        (reached(0.4), reached(0.4), None),
        (reached(0.4), reached(0.43, alone=ALONE), None),  # less than a standard error of the paired difference
    ],
)
def test_a_control_that_is_better_by_a_standard_error_is_a_sentence(kcm: Any, mcm: Any, said: str | None) -> None:
    """Promise: KCM stays deployed, and the report says which control is better and how to deploy it."""
    sentence = better_control(searched(kcm=kcm, mcm=mcm))
    assert (sentence is None) == (said is None)
    if sentence is not None and said is not None:
        assert said in sentence
        assert "MCM (random ReLU) is better than KCM (quadratic)" in sentence
        assert "`collaborators: [mcm, kcm]` deploys it" in sentence


def test_goal_accuracy_compares_accuracies() -> None:
    """With `tune.goal: accuracy` the sentence names the accuracy that a certificate should leave."""
    sentence = better_control(searched("accuracy", kcm=reached(0.8, 0.8), linear=reached(0.3, 0.9)))
    assert sentence is not None
    assert "should be right on 90.0% of the inputs, against 80.0%" in sentence


def test_a_run_trains_kcm_and_its_control_unless_more_are_listed() -> None:
    assert Train.of(parse_config(RunConfig, RUN)).collaborators == ("kcm", "mcm")
    named = parse_config(RunConfig, RUN | {"collaborators": ["mcm", "linear"]})
    assert Train.of(named).collaborators == ("mcm", "linear")
