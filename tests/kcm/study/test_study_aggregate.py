"""Aggregation, worked by hand."""

from __future__ import annotations

import pytest
from scipy import stats

from kcm.study import aggregate, flatness
from kcm.study.aggregate import over_seeds


def record(network: str, learner: str | None, seed: int, last: list[float], **more: object) -> dict:
    """Two tasks; task 0 was at 0.9 when it had been learned."""
    sizes = dict.fromkeys(("many", "medium", "few", "head", "middle", "tail"), None)
    return {
        "network": network,
        "learner": learner,
        "memory_per_class": None,
        "seed": seed,
        "task_order": ["a", "b"],
        "num_parameters": 7,
        "R": [[0.9, 0.0], last],
        "b": [0.1, 0.0],
        "seconds_per_task": [1.0, 3.0],
        "memory_bytes_per_task": [10, 20],
        **sizes,
        **more,
    }


def test_metrics_of_a_cell_are_those_of_its_matrix() -> None:
    (cell,) = aggregate([record("kan", "replay", 0, [0.5, 0.7])])["cells"]
    (seed,) = cell["per_seed"]
    assert seed["average_accuracy"] == pytest.approx(0.6)
    assert seed["average_incremental_accuracy"] == pytest.approx((0.9 + 0.6) / 2)
    assert seed["learning_accuracy"] == pytest.approx(0.8)
    assert seed["forgetting_first"] == pytest.approx(0.4)
    assert seed["bwt"] == pytest.approx(-0.4)
    assert seed["fwt"] == pytest.approx(0.0)
    assert (seed["seconds"], seed["memory_bytes"]) == (2.0, 20)
    assert cell["num_parameters"] == 7


def test_the_gap_is_to_joint_training_of_the_same_network_and_seed() -> None:
    records = [
        record("kan", "joint", 0, [0.9, 0.9]),
        record("mlp", "joint", 0, [0.6, 0.6]),
        record("kan", "replay", 0, [0.5, 0.7]),
        record("kan", "replay", 1, [0.5, 0.7]),
    ]
    replay = aggregate(records)["cells"][2]
    assert [seed["gap_to_joint"] for seed in replay["per_seed"]] == [pytest.approx(0.3), None]
    assert replay["aggregated"]["gap_to_joint"]["num_seeds"] == 1


def test_figures_over_seeds_are_mean_standard_error_and_t_interval() -> None:
    numbers = over_seeds([0.5, 0.6, 0.7])
    assert numbers is not None
    assert numbers["mean"] == pytest.approx(0.6)
    assert numbers["standard_error"] == pytest.approx(0.1 / 3**0.5)
    assert numbers["interval"] == pytest.approx(stats.t.interval(0.95, 2, 0.6, 0.1 / 3**0.5))
    assert (numbers["degrees_of_freedom"], numbers["num_seeds"]) == (2, 3)


def test_a_single_seed_has_no_interval() -> None:
    assert over_seeds([0.5]) == {
        "mean": 0.5,
        "standard_error": None,
        "interval": None,
        "degrees_of_freedom": None,
        "num_seeds": 1,
    }


def test_networks_are_compared_on_the_same_seeds_learner_and_memory() -> None:
    first, second = (0.9, 0.8, 0.85), (0.7, 0.75, 0.6)
    records = [record("kan", "replay", seed, [value, value]) for seed, value in enumerate(first)]
    records += [record("mlp", "replay", seed, [value, value]) for seed, value in enumerate(second)]
    records += [record("mlp", "finetune", seed, [0.1, 0.1]) for seed in range(3)]
    (difference,) = aggregate(records)["differences"]
    assert (difference["first"], difference["second"], difference["learner"]) == ("kan", "mlp", "replay")
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    interval = difference["average_accuracy"]
    assert interval["estimate"] == pytest.approx(0.5 / 3)
    assert (interval["low"], interval["high"]) == pytest.approx((expected.low, expected.high))
    assert interval["degrees_of_freedom"] == 2
    assert difference["tail"] is None


def test_only_seeds_that_both_networks_have_are_paired() -> None:
    records = [record("kan", "replay", seed, [value, value]) for seed, value in enumerate((0.1, 0.9, 0.8))]
    records += [record("mlp", "replay", seed, [value, value]) for seed, value in ((2, 0.6), (1, 0.8))]
    interval = aggregate(records)["differences"][0]["average_accuracy"]
    assert interval["estimate"] == pytest.approx(0.15)
    assert interval["degrees_of_freedom"] == 1


def test_costs_are_flat_when_the_last_tasks_cost_what_the_first_did() -> None:
    assert flatness([9.0, *[2.0] * 20]) == pytest.approx(1.0)
    assert flatness([9.0, *(float(task) for task in range(1, 21))]) == pytest.approx(19.5 / 1.5)
    assert flatness([1.0, 1.0]) is None
