"""A study compares what it was asked to, computes every cell once, and refuses what cannot be compared."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kcm.errors import ConfigError, DataError
from kcm.learners.training.trainer import Trainer
from kcm.study import run_cell
from kcm.study import study as study_module
from kcm.study.processor import flushes_denormals


def place(cell: dict) -> tuple:
    return cell["network"], cell["learner"], cell["memory_per_class"]


def test_every_network_meets_every_learner_at_every_memory_that_means_something_to_it(config, run) -> None:
    result = run(
        config(
            networks=["kan", "mlp", "linear", "random_relu", "ncm"],
            learners=["finetune", "replay"],
            memory_per_class=[0, 2],
        )
    )
    learned = [("finetune", None), ("replay", 0), ("replay", 2)]
    expected = [(network, *cell) for network in ("kan", "mlp", "linear", "random_relu") for cell in learned] + [
        ("ncm", None, None)
    ]
    assert [place(cell) for cell in result["cells"]] == expected


def test_replay_forgets_less_than_finetuning_and_joint_training_bounds_both(config, run) -> None:
    result = run(config(networks=["kan"], learners=["finetune", "replay", "joint"]))
    finetune, replay, joint = (cell["per_seed"][0] for cell in result["cells"])
    assert finetune["average_accuracy"] < 0.35  # the last task's two classes of ten
    assert finetune["forgetting_first"] > replay["forgetting_first"] + 0.2
    assert joint["average_accuracy"] > 0.85
    assert finetune["gap_to_joint"] == pytest.approx(joint["average_accuracy"] - finetune["average_accuracy"])


@pytest.mark.parametrize("network", ["kan", "ncm"])
def test_a_known_task_leaves_its_own_labels_to_choose_from(config, run, network) -> None:
    accuracies = [
        run(config(networks=[network], learners=["finetune"], tasks={"scenario": scenario}))["cells"][0]["per_seed"][0]
        for scenario in ("class_incremental", "task_incremental")
    ]
    unknown, known = (seed["average_accuracy"] for seed in accuracies)
    assert known > unknown + 0.02
    assert known > 0.7  # of two labels


def test_an_mlp_in_closed_form_is_its_control_of_random_units(config, run) -> None:
    kan, mlp, linear = run(config(networks=["kan", "mlp", "linear"], learners=["analytic"]))["cells"]
    assert [cell["kind"] for cell in (kan, mlp, linear)] == ["kan", "random_relu", "linear"]
    assert all(cell["per_seed"][0]["average_accuracy"] > 0.8 for cell in (kan, mlp, linear))


def test_the_memory_is_the_number_of_rows_per_class_times_the_classes(config, run) -> None:
    result = run(config(networks=["kan"], memory_per_class=[3]))
    assert result["cells"][0]["setting"]["learner"]["memory"] == 30
    bytes_per_task = result["cells"][0]["per_seed"][0]["memory_bytes_per_task"]
    assert 30 * 64 * 4 < bytes_per_task[-1] < 30 * 64 * 4 * 1.5  # 64 float32 features a row, and ids


def test_measuring_the_accuracies_is_no_part_of_what_a_task_costs(config, run, monkeypatch) -> None:
    now, evaluate = [0.0], Trainer.evaluate

    def slow(self, num_learned):
        now[0] += 100.0
        return evaluate(self, num_learned)

    monkeypatch.setattr(Trainer, "evaluate", slow)
    monkeypatch.setattr("kcm.study.cell.time", SimpleNamespace(process_time=lambda: now[0]))
    (cell,) = run(config(networks=["kan"]))["cells"]
    assert now[0] == 600.0  # before the first of five tasks, and after each
    assert cell["per_seed"][0]["seconds_per_task"] == [0.0] * 5


def test_a_cell_is_computed_by_one_thread(config, run, monkeypatch) -> None:
    seen = []

    def looking(*cell):
        seen.append((torch.get_num_threads(), flushes_denormals()))
        return run_cell(*cell)

    monkeypatch.setattr(study_module, "run_cell", looking)
    run(config(networks=["ncm"]))
    assert seen == [(1, True)]


def test_kan_and_mlp_have_equal_parameters(config, run) -> None:
    kan, mlp = (cell["num_parameters"] for cell in run(config())["cells"])
    assert mlp == pytest.approx(kan, rel=0.02)


def test_a_width_measured_for_equal_latency_is_measured_once(config, run) -> None:
    first, second = (run(config(networks=["mlp"], match="latency")) for _ in range(2))
    width = first["cells"][0]["setting"]["network"]["mlp_width"]
    assert width is not None
    assert second["cells"][0]["setting"]["network"]["mlp_width"] == width


def test_a_second_run_computes_nothing_and_gives_the_same_result(config, run, monkeypatch) -> None:
    asked = config(learners=["finetune", "replay"])
    first = run(asked)
    monkeypatch.setattr(study_module, "run_cell", lambda *_: pytest.fail("a finished cell was computed again"))
    assert run(asked) == first


def test_an_interrupted_study_goes_on_where_it_stopped(config, run, monkeypatch) -> None:
    asked, computed = config(num_seeds=2), []

    def counting(cell, setting, stream, stop_at=3):
        if len(computed) == stop_at:
            raise KeyboardInterrupt
        computed.append(cell)
        return run_cell(cell, setting, stream)

    monkeypatch.setattr(study_module, "run_cell", counting)
    with pytest.raises(KeyboardInterrupt):
        run(asked)
    monkeypatch.setattr(study_module, "run_cell", lambda *cell: counting(*cell, stop_at=99))
    assert len(run(asked)["cells"]) == 2
    assert len(computed) == len(set(computed)) == 4


def test_another_setting_is_another_cell(config, run, monkeypatch) -> None:
    run(config(networks=["kan"], memory_per_class=[2]))
    monkeypatch.setattr(study_module, "run_cell", lambda *_: pytest.fail("computed"))
    with pytest.raises(pytest.fail.Exception, match="computed"):
        run(config(networks=["kan"], memory_per_class=[3]))


def test_seeds_draw_other_orders_and_other_classes_per_task_on_the_same_splits(config, run) -> None:
    result = run(config(networks=["ncm"], num_seeds=3))
    matrices = [seed["R"] for seed in result["cells"][0]["per_seed"]]
    assert len({str(matrix) for matrix in matrices}) == 3
    # With all classes learned the means are the same, whatever the order; but the tasks are of other sizes.
    assert [sum(matrix[-1]) / 5 for matrix in matrices] == pytest.approx([0.9] * 3, abs=0.05)


def test_a_study_scored_on_validate_never_reads_test(config, run) -> None:
    validate, test = (run(config(networks=["ncm"], score_on=split)) for split in ("validate", "test"))
    assert validate["score_on"] == "validate"
    assert validate["cells"][0]["per_seed"][0]["R"] != test["cells"][0]["per_seed"][0]["R"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learners": ["repaly"]}, r"unknown learner 'repaly', known are .*replay"),
        ({"networks": ["cnn"]}, r"'kan', 'mlp', 'linear', 'random_relu' or 'ncm'"),
        ({"memory_per_class": [0.5]}, r"smaller than the number of classes, 10"),
        ({"memory_per_class": [-1]}, r"smaller than the number of classes"),
        ({"tasks": {"num_tasks": 11}}, r"num_tasks = 11, but there are 10 labels"),
        ({"tasks": {"long_tail": {"imbalance_factor": 0.5}}}, r"imbalance_factor = 0.5"),
        ({"tasks": {"scenario": "incremental"}}, r"tasks.scenario = 'incremental'"),
        ({"feature_columns": ["pixels_*"]}, r"no column 'pixels_\*'.*mean 'pixel_"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(config, run, monkeypatch, values, message) -> None:
    monkeypatch.setattr(study_module, "run_cell", lambda *_: pytest.fail("worked"))
    with pytest.raises((ConfigError, DataError), match=message):
        run(config(**values))
