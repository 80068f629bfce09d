"""Rows that have none of the labels: only the large model can be right of them, and the path of a run keeps to that."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcm.bundle.bundle import Bundle
from kcm.config import parse_config
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.inputs.vectors import list_column
from kcm.large import LargeAnswer
from kcm.tasks.shards import write_shards
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.stages.evaluate import Evaluate
from pipelines.stages.outcomes import Outcomes
from pipelines.stages.register import Register
from pipelines.stages.tasks import Tasks
from pipelines.stages.train import Train
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe, write_json
from pipelines.store.features import FACTS, SECONDS, FeaturesArtefact
from pipelines.store.outcomes import Answers
from pipelines.store.sequence import SequenceArtefact
from pipelines.training.artefacts import TrainedArtefact, TunedArtefact
from pipelines.training.trial import Choice, TrialPlan
from pipelines.training.worker import TrainerPlan
from tests.outcome_files import read_outcomes, rows_where

INTENTS = ("book", "cancel", "pay", "weather")
NONE = "oos"
CONFIG: dict[str, Any] = {
    "name": "clinc",
    "collaborators": ["kcm"],
    "encoder": {"model": "none"},
    "network": {"hidden": []},
    "learner": {"name": "joint"},
    "train": {"num_epochs": 40, "learning_rate": 0.02},
    "certificate": {"epsilon": 0.1},
}


def write_clinc(path: Path, answers: Path) -> None:
    """CLINC150's layout, and what a large model answered: it is wrong of every third out-of-scope row of test alone."""
    content: dict[str, list[list[str]]] = {}
    recorded = []
    for split, count in (("train", 40), ("val", 80), ("test", 40)):
        content[split] = [[f"{split} {intent} {i}", intent] for i in range(count) for intent in INTENTS]
        content[f"oos_{split}"] = [[f"outside {split} {i}", NONE] for i in range(30)]
        recorded += [(f"{split}-{i + 1}", row[1]) for i, row in enumerate(content[split])]
        recorded += [(f"oos_{split}-{i + 1}", "pay" if split == "test" and i % 3 == 0 else NONE) for i in range(30)]
    path.write_text(json.dumps(content))
    with answers.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "label"), *recorded])


def made(store: ArtefactStore, view: type[Artefact], recipe: Recipe, write: Callable[[Path, Path], None]) -> Artefact:
    return store.build(recipe, write)[0].as_a(view)


def encoded_by_hand(store: ArtefactStore, sequence: SequenceArtefact) -> Artefact:
    """Features in place of an encoder's: an axis for every intent, and their middle for what is outside."""

    def write(folder: Path, scratch: Path) -> None:
        rng = np.random.default_rng(0)
        for number in range(len(sequence.names.tasks)):
            rows = sequence.task(number)
            label_N = rows["label"].to_numpy()
            centre_ND = np.where(label_N[:, None] == OUT_OF_SCOPE, 1.0, 2.0 * np.eye(len(INTENTS))[label_N])
            features_ND = (centre_ND + rng.normal(scale=0.1, size=centre_ND.shape)).astype(np.float32)
            columns = rows.drop_columns(["text"]).append_column("features", list_column(features_ND))
            columns = columns.set_column(columns.column_names.index("group"), "group", [[None] * len(rows)])
            write_shards(folder, number, [columns.append_column(SECONDS, [np.full(len(rows), 1e-3)])])
        write_json(folder / FACTS, {"runtime": None, "preview": {}})

    recipe = Recipe("features", 2, {"identity": "by hand", "device": "cpu"}, (sequence,))
    return made(store, FeaturesArtefact, recipe, write)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run without Ray, from the rows to the bundle."""
    folder = tmp_path_factory.mktemp("clinc")
    write_clinc(folder / "data_full.json", folder / "answers.csv")
    rows = {"source": {"kind": "files", "path": str(folder / "data_full.json")}, "out_of_scope": "keep"}
    more = {
        "storage_path": str(folder / "storage"),
        "tasks": rows | {"scenario": "class_incremental", "num_tasks": 2},
        "large": {"adapter": "recorded", "path": str(folder / "answers.csv")},
    }
    config = parse_config(RunConfig, CONFIG | more)
    context = Context(config.name, ArtefactStore(config.storage_path), config.assets_path)
    done = {"sequence": Tasks.of(config).build({}, context)}
    done["features"] = encoded_by_hand(context.store, done["sequence"])
    done["outcomes"] = Outcomes.of(config).build(done, context)
    training = Train.of(config)
    plan = TrainerPlan(training, done["features"], done["outcomes"])
    trainers = {name: plan.trainer(name) for name in training.collaborators}
    for trainer in trainers.values():
        trainer.run()
    states = {name: trainer.state_dict() for name, trainer in trainers.items()}
    trained = made(
        context.store,
        TrainedArtefact,
        Recipe("train", 1, training.section(), (done["features"], done["outcomes"])),
        lambda folder, scratch: TrainedArtefact.write(folder, states, list(states)),
    )
    weights = config.distill
    choice = Choice(0.02, weights.large_weight, weights.judge_weight, "confidence", "global")  # as configured
    trial = TrialPlan(
        plan=plan,
        trained=trained,
        scratch=folder / "scratch",
        max_loss=0.0,
        certificate=config.certificate,
    )
    done["tuned"] = made(
        context.store,
        TunedArtefact,
        Recipe("tune", 1, {}, (trained,)),
        lambda target, scratch: [trial.evaluate(name, choice).save(target / name) for name in states],
    )
    done["evaluated"] = Evaluate.of(config).build(done, context)
    bundle = Register.of(config).build(done, context).bundle
    return {
        "sequence": done["sequence"],
        "plan": plan,
        "result": done["evaluated"].result["kcm"],
        "table": read_outcomes(done["evaluated"].folder / "kcm" / "outcomes.parquet"),
        "bundle": Bundle.read(bundle),
    }


def test_large_teaching_is_restricted_to_the_label_list() -> None:
    """Promise: what the large model teaches is restricted to the label list."""

    def taught(label: int, *probabilities: float) -> list[float]:
        answer = LargeAnswer(label, np.array(probabilities, dtype=np.float32))
        return Answers.of([answer], num_labels=2).probabilities_NC[0].tolist()

    assert taught(0, 0.6, 0.2, 0.2) == pytest.approx([0.75, 0.25])
    assert np.isnan(taught(2, 0.1, 0.1, 0.8)).all()  # it says none-of-these, and so teaches nothing


def test_out_of_scope_rows_are_neither_trained_nor_tested_on(run) -> None:
    sequence = run["sequence"]
    for number, rows in enumerate(run["plan"].trainer("kcm").tasks):
        labels = sequence.task(number, split="test")["label"].to_pylist()
        assert OUT_OF_SCOPE in labels
        assert rows.num_rows("test") == len([label for label in labels if label != OUT_OF_SCOPE])
        assert OUT_OF_SCOPE not in rows.label_counts("train")


def test_out_of_scope_is_small_wrong_and_large_right_if_none(run) -> None:
    """Promise: in the table the small model is wrong and the large one right iff it says none."""
    table = rows_where(run["table"], split="test")
    outside = np.array([row_id.startswith("oos_") for row_id in table.id])
    assert outside.sum() == 30
    assert not table.small_correct[outside].any()
    said_pay = np.array([(int(row_id.rpartition("-")[2]) - 1) % 3 == 0 for row_id in table.id[outside]])
    np.testing.assert_array_equal(table.large_correct[outside], ~said_pay)
    assert table.small_correct[~outside].mean() > 0.95


def test_result_counts_escalated_and_none_answers(run) -> None:
    """Promise: a certified cascade keeps what it knows, sends on what nobody taught it, and says both."""
    assert run["result"]["certificate"]["decision"] == "threshold"
    assert run["result"]["overall"]["calls_saved"] > 0.6
    assert run["result"]["out_of_scope"] == {
        "out_of_scope_num_rows": 30,
        "out_of_scope_escalated": 1.0,
        "out_of_scope_accuracy": pytest.approx(20 / 30),
    }


def test_the_bundle_remembers_what_none_of_the_labels_is_called(run) -> None:
    assert (run["bundle"].label_names, run["bundle"].none_label) == (INTENTS, NONE)


def test_the_bundle_holds_what_its_certify_rows_say_of_traffic(run) -> None:
    bundle, table = run["bundle"], rows_where(run["table"], split="certify", prompt="none")
    kept_N = bundle.policy.keep(bundle.gate.score(None, table.judge_logits[:, : len(INTENTS)]), table.task)
    differs_N = kept_N & (table.small_logits.argmax(1) != table.large_label)
    limits = bundle.drift.limits()
    assert kept_N.mean() > 0.5
    assert 1 - kept_N.mean() < limits["call_rate"] < 1.15 - kept_N.mean()
    assert differs_N.mean() < limits["disagreement"] < differs_N.mean() + 0.1
    assert len(bundle.drift.rows()) == (len(table) + 1) // 2
