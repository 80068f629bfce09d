"""Collaborators take turns, and each is searched as it would be alone."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from pipelines.training.searcher import SideBySide, split_off

SPACE = {"rate": tune.choice([0.1, 0.2, 0.3, 0.4]), "gate": tune.choice(["confidence", "deferral"])}


def optuna_search() -> OptunaSearch:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = OptunaSearch.convert_search_space(SPACE)
    return OptunaSearch(space, metric=["area", "saved"], mode=["max", "max"], seed=3)


def side_by_side(num_trials: int) -> SideBySide:
    return SideBySide({name: optuna_search() for name in ("kcm", "mcm")}, num_trials)


def result(params: dict[str, Any]) -> dict[str, Any]:
    return {"area": params["rate"], "saved": float(params["gate"] == "deferral")}


def owners(searcher: Searcher, trials: str) -> list[str]:
    return [split_off(searcher.suggest(trial))[0] for trial in trials]


def test_the_next_trial_is_of_who_has_the_fewest_running_then_the_fewest_so_far() -> None:
    both = side_by_side(3)
    assert owners(both, "ab") == ["kcm", "mcm"]
    both.on_trial_complete("b", {"area": 0.1, "saved": 0.1})
    assert owners(both, "c") == ["mcm"]  # whose trial has ended
    both.on_trial_complete("c", error=True)
    assert owners(both, "d") == ["mcm"]
    both.on_trial_complete("d", {"area": 0.1, "saved": 0.1})
    assert owners(both, "ef") == ["kcm", "kcm"]  # the other one has had all of its own
    assert both.suggest("g") == Searcher.FINISHED


def test_each_is_searched_as_it_would_be_alone() -> None:
    """Promise: beyond the ten random points, too, a collaborator's points are those of a search of its own."""
    both, alone = side_by_side(14), optuna_search()
    found: dict[str, list[dict[str, Any]]] = {"kcm": [], "mcm": []}
    for step in range(14):
        pair = [(f"{step}-{place}", both.suggest(f"{step}-{place}")) for place in range(2)]
        for trial, config in pair:
            name, params = split_off(config)
            found[name].append(params)
            both.on_trial_complete(trial, result(params))
    expected = []
    for step in range(14):
        expected.append(alone.suggest(str(step)))
        alone.on_trial_complete(str(step), result(expected[-1]))
    assert found == {"kcm": expected, "mcm": expected}


def test_a_restored_search_goes_on_where_it_was(tmp_path: Path) -> None:
    before = side_by_side(12)
    for number in range(22):
        before.on_trial_complete(str(number), result(split_off(before.suggest(str(number)))[1]))
    before.suggest("running")
    before.save(str(tmp_path / "state"))
    after = side_by_side(12)
    after.restore(str(tmp_path / "state"))
    after.on_trial_complete("running", {"area": 0.5, "saved": 0.5})
    before.on_trial_complete("running", {"area": 0.5, "saved": 0.5})
    assert after.suggest("next") == before.suggest("next")
    assert after.suggest("none") == Searcher.FINISHED


def test_a_trial_that_came_after_the_state_counts_for_its_collaborator() -> None:
    both = side_by_side(1)
    config = {"collaborator": "kcm", "rate": 0.1, "gate": "deferral"}
    both.on_trial_complete("unknown", {"config": config, "area": 0.1, "saved": 0.2})
    assert owners(both, "a") == ["mcm"]
    assert both.suggest("b") == Searcher.FINISHED


def test_one_that_was_stored_before_its_first_trial_knows_the_space() -> None:
    """Promise: a driver that is killed in the first second of a search leaves one that can begin."""
    stored = pickle.loads(pickle.dumps(side_by_side(2)))
    assert stored.suggest("a") == side_by_side(2).suggest("a")
