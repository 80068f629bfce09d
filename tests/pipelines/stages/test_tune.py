"""What a search tries, what it says beforehand, and what is recorded of it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.stages.tune import Tune, forecast, search_space
from pipelines.store.artefact import ArtefactStore, Recipe, write_json
from pipelines.training.artefacts import TRIALS, TunedArtefact


@pytest.mark.parametrize(
    ("more", "rates"),
    [
        ({"train": {"optimizer": "adamw"}, "learner": {"name": "replay"}}, (0.5, 0.6)),
        ({"train": {"optimizer": "sgd"}, "learner": {"name": "replay"}}, (7.0, 8.0)),
        ({"train": {"optimizer": "sgd", "sgd_rate": 9.0}, "learner": {"name": "slda"}}, (9.0,)),
        ({"train": {"learning_rate": 0.9}, "learner": {"name": "analytic"}}, (0.9,)),
    ],
    ids=["adamw", "sgd", "slda", "analytic"],
)
def test_the_rates_that_are_searched_are_those_of_the_chosen_optimiser(more, rates) -> None:
    values = {"name": "a", "tasks": {}, "encoder": {"model": "e"}, "large": {"adapter": "recorded", "path": "l.csv"}}
    tune = {"learning_rates": [0.5, 0.6], "sgd_rates": [7.0, 8.0]}
    network = {"hidden": []}  # the closed forms are of a single layer
    config = parse_config(RunConfig, values | {"tune": tune, "network": network} | more)
    plan = SimpleNamespace(
        config=config,
        num_labels=3,
        features=SimpleNamespace(names=SimpleNamespace(tasks=("one",))),
        learner=lambda name: config.learner.build(config.seed),
    )
    assert search_space(config.tune, plan, "kcm")["learning_rate"] == rates


def test_a_search_says_beforehand_what_it_may_take() -> None:
    assert forecast(32, 2, None) == "search: 32 trials, 2 at a time; most train a collaborator anew"
    assert forecast(32, 2, 15.0).endswith("anew, which took 15 s: at most some 4 min 0 s")


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


def test_trials_are_recorded_in_every_run_so_that_those_lost_in_an_outage_come_again(tmp_path: Path) -> None:
    values = {"name": "a", "tasks": {}, "encoder": {"model": "e"}, "large": {"adapter": "recorded", "path": "l.csv"}}
    stage = Tune.of(parse_config(RunConfig, values))
    metrics = {"area": 0.5, "calls_saved": 0.5, "promised": 0.2}
    trial = {"collaborator": "kcm", "params": {"learning_rate": 0.1}, **metrics}
    trials = [{"number": number, **trial} for number in range(2)]
    recipe, store = Recipe("tune", 1, {}), ArtefactStore(tmp_path)
    built, _ = store.build(recipe, lambda folder, scratch: write_json(folder / TRIALS, trials))
    artefact = built.as_a(TunedArtefact)
    recorded: list[Any] = []
    tracking: Any = SimpleNamespace(log_trial=lambda *given: recorded.append(given))
    for _ in range(2):
        stage.publish(artefact, Context("a", store, tmp_path, tracking=tracking))
    once = [(f"kcm {n}", f"{artefact.fingerprint}/kcm {n}", {"learning_rate": 0.1}, metrics) for n in range(2)]
    assert recorded == once * 2
    stage.publish(artefact, Context("a", store, tmp_path))  # of a run without a record
