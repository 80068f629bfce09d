"""What a search tries, what it says beforehand, and what is recorded of it."""

from types import SimpleNamespace
from typing import Any

import pytest

from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.stages.tune import search_space


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
    values = {"name": "a", "tasks": {}, "encoder": {"model": "e"}, "large": {"adapter": "recorded", "path": "l.csv"}}
    network = {"hidden": []}  # the closed forms are of a single layer
    config = parse_config(RunConfig, values | {"network": network} | more)
    plan = SimpleNamespace(
        config=config,
        num_labels=3,
        features=SimpleNamespace(names=SimpleNamespace(tasks=("one",))),
        learner=lambda name: config.learner.build(config.seed),
    )
    assert search_space(config.tune, plan, "kcm")["learning_rate"] == rates


def test_dimensions_without_effect_are_not_searched() -> None:
    values = {"name": "a", "tasks": {}, "encoder": {"model": "e"}, "large": {"adapter": "recorded", "path": "l.csv"}}
    tune = {"gates": ["confidence", "signals"], "scopes": ["global", "per_task"]}
    config = parse_config(RunConfig, values | {"tune": tune, "network": {"hidden": []}})

    def space(tasks: tuple[str, ...]) -> dict[str, Any]:
        learner = lambda name: config.learner.build(config.seed)  # noqa: E731
        found = search_space(
            config.tune,
            SimpleNamespace(
                config=config, features=SimpleNamespace(names=SimpleNamespace(tasks=tasks)), learner=learner
            ),
            "kcm",
        )
        return {name: found[name] for name in ("gate", "scope")}

    assert space(("one",)) == {"gate": ("confidence", "signals"), "scope": ("global",)}
    assert space(("one", "two")) == {"gate": ("confidence", "signals"), "scope": ("global", "per_task")}
