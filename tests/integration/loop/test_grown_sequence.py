"""An update's stages, from a window of the log to a new policy, on a sequence of two tasks that a run has learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from kcm.bundle.bundle import Bundle
from kcm.config import parse_config
from kcm.errors import DataError
from kcm.inputs.labels import UNLABELLED
from kcm.tasks.shards import shard_file
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.loop.build import stages_of
from pipelines.loop.window.ask_again import AskAgain
from pipelines.loop.window.naming import ClassNames
from pipelines.loop.window.stage import LogWindow, WindowArtefact
from pipelines.loop.window.task import TrafficOutcomes
from pipelines.run import STAGES
from pipelines.stages.parent import BundleArtefact, Parent
from pipelines.stages.stage import Stage, run_stages
from pipelines.stages.tune import Tune
from pipelines.store.artefact import Artefact, ArtefactStore
from pipelines.store.features import FeaturesArtefact, feature_matrix
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.sequence import SequenceArtefact
from pipelines.training.artefacts import TrainedArtefact, TunedArtefact
from pipelines.training.worker import TrainerPlan
from tests.outside import write_modules
from tests.pipelines.loop.logged import MadeLog, decisions, unit

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

WORDS = {"good": ["fine"], "bad": ["dull"], "odd": ["weird"]}
SETTINGS: dict[str, Any] = {
    "name": "grown",
    "collaborators": ["kcm"],
    "encoder": {"kind": "letters:LettersConfig"},
    "large": {"adapter": "words:WordsConfig", "words": WORDS},
    "learner": {"name": "replay", "memory": 30},
    "network": {"hidden": [4]},
    "train": {"num_epochs": 2, "mask_unseen": True},
    "tune": {"num_trials": 2, "gates": ["confidence"], "scopes": ["per_task"], "max_loss": 0.1},
    "certificate": {"epsilon": 0.2},
    "update": {"fractions": {"train": 0.4, "validate": 0.2, "certify": 0.2, "test": 0.2}},
    "serve": {"feedback": {"store_payloads": "all"}},
    "cluster": {"num_encoders": 1, "num_workers": 1},
}


def said(rng: np.random.Generator, word: str) -> str:
    """A text that says nothing but this word."""
    return " ".join("".join(rng.choice([*"aeiounrst"], 4)) for _ in range(4)) + f" {word}"


def texts_of(labels: list[str], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [said(rng, WORDS[label][0]) for label in labels]


@dataclass(frozen=True)
class Champion:
    """A run's bundle, and what an update is made with."""

    config: RunConfig
    context: Context
    artefacts: dict[str, Artefact]

    @classmethod
    def of(cls, rows: pd.DataFrame, folder: Path, **settings: Any) -> Champion:
        """What a run over rows of several topics has made."""
        rows.to_csv(folder / "rows.csv", index=False)
        where = {
            "storage_path": str(folder / "storage"),
            "assets_path": str(folder),
            "tasks": {"source": {"kind": "files", "path": str(folder / "rows.csv"), "task_column": "topic"}},
        }
        config = parse_config(RunConfig, SETTINGS | where | settings)
        context = Context("grown", ArtefactStore(config.storage_path), folder, config.cluster)
        return cls(config, context, dict(run_stages([stage.of(config) for stage in STAGES], context)))

    @property
    def bundle(self) -> BundleArtefact:
        return self.artefacts["register"].as_a(BundleArtefact)

    def update(
        self, log: MadeLog, until: type[Stage] = Tune, named: tuple[str, ...] = (), **more: Any
    ) -> dict[str, Artefact]:
        """The artefacts of an update up to a stage; a window is read once."""
        parent = Parent(self.bundle, Bundle.read(self.bundle.bundle), "made/1")
        settings = self.config.model_dump(mode="json", exclude_unset=True)
        config = parse_config(RunConfig, settings | {"update": SETTINGS["update"] | more})
        reader: Any = log
        names = ClassNames(self.context.store.control, f"named {named}")
        file = self.context.store.root / "labels.txt"
        file.write_text("\n".join(named))
        names.read(file, ())
        window = LogWindow.read_from(reader, config, parent, 0, log.table.num_rows, names, "made/1")
        parent = replace(parent, forgotten_rows=frozenset(window.forgotten_rows))
        asked = [AskAgain.of(config, parent=parent)] if named else []
        stages: list[Stage] = [window, *asked, *stages_of(config, parent)]
        last = next(place for place, stage in enumerate(stages) if isinstance(stage, until))
        stages = stages[: last + 1]
        return dict(run_stages(stages, self.context))


def rows() -> pd.DataFrame:
    """Texts of two topics that are good or bad."""
    labels = ["good" if number % 3 else "bad" for number in range(240)]
    topics = [("films", "books")[number // 120] for number in range(240)]
    return pd.DataFrame({"text": texts_of(labels, seed=0), "label": labels, "topic": topics})


@pytest.fixture(scope="module")
def champion(cluster_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Champion]:
    """A run over two topics whose texts are good or bad."""
    write_modules(cluster_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(cluster_path)
        yield Champion.of(rows(), tmp_path_factory.mktemp("champion"))


def log_of(champion: Champion, labels: list[str], volunteered: int, **more: Any) -> MadeLog:
    """A log about texts of a third topic, of which people named the first ones."""
    bundle = Bundle.read(champion.bundle.bundle)
    known = [label if label in bundle.label_names else "bad" for label in labels]
    logged = decisions(
        texts_of(labels, seed=1), known, identity=bundle.large_identity, answers=bundle.answer_names, **more
    )
    for row, label in list(zip(logged, labels, strict=True))[:volunteered]:
        row["label"] = label
    return MadeLog(logged)


@pytest.fixture
def traffic(champion: Champion) -> Callable[..., MadeLog]:
    """A log about 300 texts of a third topic."""

    def made(labels: list[str] | None = None, volunteered: int = 30, **more: Any) -> MadeLog:
        return log_of(
            champion, labels or ["good" if number % 2 else "bad" for number in range(300)], volunteered, **more
        )

    return made


def whole(update: dict[str, Artefact]) -> dict[str, Any]:
    """The state of one trainer that had all tasks from the start."""
    trained = update["train"].as_a(TrainedArtefact)
    plan = TrainerPlan(
        trained.config, update["features"].as_a(FeaturesArtefact), update["outcomes"].as_a(OutcomesArtefact)
    )
    trainer = plan.trainer("kcm")
    trainer.run()
    return trainer.state_dict()


def assert_same(ours: Any, theirs: Any) -> None:
    """Two states are equal to the last digits, which the number of threads may change."""
    if isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, equal_nan=True)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert_same(ours[key], value)
    else:
        assert ours == theirs


def test_added_domain_equals_training_from_the_start(champion: Champion, traffic: Callable[..., MadeLog]) -> None:
    """Promise: a domain is learned as if it had been there from the start."""
    log = traffic()
    update = champion.update(log)
    window, tuned = update["window"].as_a(WindowArtefact), update["tune"].as_a(TunedArtefact)
    features, outcomes = update["features"].as_a(FeaturesArtefact), update["outcomes"].as_a(OutcomesArtefact)
    assert features.names.tasks == ("films", "books", "traffic-300")
    assert features.names.labels == ("bad", "good")

    # What was there is the same file, what came is what the log says of decisions that the large model answered.
    earlier = champion.artefacts["features"].as_a(FeaturesArtefact)
    for number in range(2):
        assert shard_file(features.folder, number, 0).samefile(shard_file(earlier.folder, number, 0))
    rows, answers = features.task(2), outcomes.task(2)
    assert rows["id"].to_pylist() == answers["id"].to_pylist()
    logged = {f"{row['request_id']}/0": row for row in window.table.to_pylist()}
    assert {logged[row]["purpose"] for row in rows["id"].to_pylist()} == {"train", "validate", "test"}
    for row, answer in zip(rows.to_pylist(), answers.to_pylist(), strict=True):
        decision = logged[row["id"]]
        assert row["split"] == decision["purpose"]
        large = decision["large_label"]
        assert answer["large_label"] == (-1 if large is None else ["bad", "good"].index(large))
        given = decision["label"] if row["split"] == "train" else large
        assert row["label"] == (UNLABELLED if given is None else ["bad", "good"].index(given))
    texts = [logged[row]["text"] for row in rows["id"].to_pylist()]
    counted = [[text.count(letter) / 10 for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts]
    np.testing.assert_allclose(feature_matrix(rows), counted, atol=1e-6)

    state, expected = update["train"].as_a(TrainedArtefact).state("kcm"), whole(update)
    assert_same(state["collaborator"], expected["collaborator"])
    assert_same(state["learner"], expected["learner"])
    assert state["accuracy"] == expected["accuracy"]
    before = champion.artefacts["tune"].as_a(TunedArtefact).load("kcm").state
    assert [row[:2] for row in state["accuracy"]["small"][:2]] == before["accuracy"]["small"]

    chosen = tuned.load("kcm")
    assert chosen.policy.gate == "confidence"
    assert set(chosen.policy.task_decisions) <= set(features.names.tasks)
    assert tuned.choice("kcm") == champion.artefacts["tune"].as_a(TunedArtefact).choice("kcm")
    assert tuned.trials[0]["forecast"] >= 0
    assert len(chosen.validate_scores) == sum(len(features.task(n, split="validate")) for n in range(3))

    again = champion.update(log)
    assert {name: each.fingerprint for name, each in again.items()} == {
        name: each.fingerprint for name, each in update.items()
    }


def test_a_new_label_gets_an_output_and_the_rest_goes_on(champion: Champion, traffic: Callable[..., MadeLog]) -> None:
    labels = [("good", "bad", "odd")[number % 3] for number in range(300)]
    update = champion.update(traffic(labels, volunteered=300), named=("odd",))
    names = update["features"].as_a(FeaturesArtefact).names
    assert names.labels == ("bad", "good", "odd")
    state = update["train"].as_a(TrainedArtefact).state("kcm")
    assert_same(state["collaborator"], whole(update)["collaborator"])
    tuned = update["tune"].as_a(TunedArtefact)
    assert tuned.load("kcm").collaborator.num_labels == 3
    before = Bundle.read(champion.bundle.bundle).large_identity
    assert update["outcomes"].as_a(OutcomesArtefact).identity != before


def test_the_head_of_a_classifier_grows_from_what_people_said(
    champion: Champion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster_path: Path
) -> None:
    """Promise: it answers the new label, and of two that it had it says what it said; silence teaches it nothing."""
    monkeypatch.syspath_prepend(cluster_path)
    classifier = {"adapter": "classifier", "encoder": SETTINGS["encoder"]}
    solved = {"learner": {"name": "analytic"}, "network": {"hidden": []}, "train": {"mask_unseen": True}}
    learned = Champion.of(rows(), tmp_path, large=classifier, **solved)
    labels = [("good", "bad", "odd")[number % 3] for number in range(300)]
    with pytest.raises(DataError, match="so far 'odd' 0"):
        learned.update(log_of(learned, labels, volunteered=6), LogWindow, named=("odd",))
    update = learned.update(log_of(learned, labels, volunteered=200), TrafficOutcomes, named=("odd", "none"))
    facts = update["ask_again"].as_a(WindowArtefact).facts
    assert (facts.new_labels, facts.untaught_labels) == (("odd",), ("none",))

    before = learned.artefacts["outcomes"].as_a(OutcomesArtefact).head
    outcomes = update["outcomes"].as_a(OutcomesArtefact)
    after = outcomes.head
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(after.first(2).weight_CD, before.weight_CD)
    unnamed = update["ask_again"].as_a(WindowArtefact).table.to_pylist()[200:]
    odd = [row["large_label"] == "odd" for row in unnamed if row["text"].endswith("weird") and row["large_label"]]
    assert np.mean(odd) > 0.9


def test_what_was_forgotten_leaves_rows_and_memory(champion: Champion, traffic: Callable[..., MadeLog]) -> None:
    state = champion.artefacts["tune"].as_a(TunedArtefact).load("kcm").state
    held = state["learner"]["memory"]["ids"][0]
    sequence = champion.artefacts["tasks"].as_a(SequenceArtefact)
    row = next(row for number in range(2) for row in sequence.task(number).to_pylist() if row["id"] == held)
    log = traffic(seed=5)
    log.forgets = frozenset({unit(row["text"])})
    update = champion.update(log)
    assert update["window"].as_a(WindowArtefact).facts.forgotten_rows == (held,)
    for kind in ("tasks", "features", "outcomes"):
        ids = {
            each for n in range(3) for each in pq.read_table(shard_file(update[kind].folder, n, 0))["id"].to_pylist()
        }
        assert held not in ids
    assert held not in update["train"].as_a(TrainedArtefact).state("kcm")["learner"]["memory"]["ids"]
    assert held in {each for n in range(2) for each in sequence.task(n)["id"].to_pylist()}
