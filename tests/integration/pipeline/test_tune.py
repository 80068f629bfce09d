"""The search on Ray Tune: what it finds is read back, and nothing is trained twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kcm.cascade.fitted.signals import SignalsHead
from kcm.config import parse_config
from kcm.inputs.vectors import list_column
from kcm.large import NO_PROMPT
from kcm.tasks.sequence import write_description, write_rows
from kcm.tasks.shards import write_shards
from pipelines.batch import mapping
from pipelines.batch.mapping import run_remotely
from pipelines.batch.outcome_table import scored_parts
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.stages.train import Train
from pipelines.stages.tune import Tune
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe, write_json
from pipelines.store.features import CUT, FACTS, SECONDS, FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.sequence import SequenceArtefact
from pipelines.training.artefacts import TrainedArtefact, TunedArtefact
from pipelines.training.worker import TrainerPlan
from tests.pipelines.made_parts import parts_here

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

Write = Callable[[Path, Path], None]
SPLITS = {"train": 64, "validate": 64, "test": 16}
SETTINGS: dict[str, Any] = {
    "name": "tuned",
    "collaborators": ["kcm"],
    "tasks": {},
    "encoder": {"model": "none"},
    "large": {"adapter": "recorded", "path": "answers.csv"},
    "network": {"hidden": []},
    "train": {"num_epochs": 2, "batch_size": 16},
    "tune": {"num_trials": 4, "gates": ["confidence"], "large_weights": [0.0, 0.5], "max_loss": 0.1},
}

# One trial at a time, each trained for a second or more: the driver dies long before the last, on any machine.
LONG: dict[str, Any] = {
    "learner": {"name": "replay", "memory": 20},
    "train": {"num_epochs": 150},
    "tune": {"num_trials": 10, "learning_rates": [0.001 * step for step in range(1, 41)]},
    "cluster": {"num_trials": 1},
}
DRIVER = """
import sys
from pathlib import Path
from pipelines.cluster.connection import connected
from pipelines.cluster.config import ClusterConfig
from tests.integration.pipeline.test_tune import LONG, Search
with connected(ClusterConfig(num_cpus=2)):
    Search(Path(sys.argv[1])).run(**LONG)
"""


def one_task() -> tuple[pa.Table, pa.Table]:
    """Features and answers of a task: two classes that overlap, and a large model that is always right."""
    rng = np.random.default_rng(0)
    splits = [split for split, count in SPLITS.items() for _ in range(count)]
    labels = rng.integers(0, 2, len(splits))
    ids = [f"row-{number}" for number in range(len(splits))]
    inputs = (labels[:, None] + rng.normal(size=(len(splits), 4))).astype(np.float32)
    rows = {"id": ids, "split": splits, "label": labels, "group": [None] * len(splits), SECONDS: np.ones(len(splits))}
    answers = {
        "id": ids,
        "split": splits,
        "prompt": [NO_PROMPT.mode] * len(splits),
        "large_label": labels,
        "large_probabilities": list_column(np.eye(2, dtype=np.float32)[labels]),
        "large_cost": np.ones(len(splits)),
        "large_error": np.zeros(len(splits), dtype=bool),
    }
    return pa.table(rows | {"features": list_column(inputs)}), pa.table(answers)


def write_sequence(folder: Path) -> None:
    """A sequence of one task; what counts are its names, since the features are made by hand."""
    row = {"id": "a", "text": "a", "image": b"", "label": 0, "group": ""}
    rows = pa.Table.from_pylist([row | {"split": split} for split in ("train", "validate", "certify", "test")])
    write_rows(folder, 0, rows)
    labels = ["no", "yes"]
    task = {"name": "only", "label_names": labels}
    write_description(folder, {"name": "made", "label_names": labels, "none_label": None, "tasks": [task]})


class Search:
    """Searches over one storage, whose features, answers and configured collaborator were made by hand."""

    def __init__(self, storage: Path) -> None:
        self.store = ArtefactStore(storage)
        rows = self._made(SequenceArtefact, Recipe("tasks", 0, {}), lambda folder, scratch: write_sequence(folder))
        features, outcomes = one_task()

        def write_features(folder: Path, scratch: Path) -> None:
            write_shards(folder, 0, [features])
            write_json(folder / FACTS, {"runtime": None, "preview": {}, CUT: 0})

        self.features = self._made(FeaturesArtefact, Recipe("features", 0, {}, (rows,)), write_features)
        self.outcomes = self._written(OutcomesArtefact, Recipe("outcomes", 0, {}, (rows,)), outcomes)

    def _written(self, view: type[Artefact], recipe: Recipe, rows: pa.Table) -> Any:
        return self._made(view, recipe, lambda folder, scratch: write_shards(folder, 0, [rows]))

    def _made(self, view: type[Artefact], recipe: Recipe, write: Write) -> Any:
        return self.store.build(recipe, write)[0].as_a(view)

    def run(self, **more: Any) -> TunedArtefact:
        """The artefact of a search with these settings changed."""
        config = parse_config(RunConfig, merged(SETTINGS, more) | {"storage_path": str(self.store.root)})
        training = Train.of(config)

        def train(folder: Path, scratch: Path) -> None:
            plan = TrainerPlan(training, self.features, self.outcomes)
            trainers = {name: plan.trainer(name) for name in training.collaborators}
            for trainer in trainers.values():
                trainer.run()
            states = {name: trainer.state_dict() for name, trainer in trainers.items()}
            TrainedArtefact.write(folder, states, list(states))

        recipe = Recipe("train", 0, training.section(), (self.features, self.outcomes))
        trained = self._made(TrainedArtefact, recipe, train)
        context = Context(config.name, self.store, config.assets_path, config.cluster)
        done = {"features": self.features, "outcomes": self.outcomes, "trained": trained}
        return Tune.of(config).build(done, context)


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `more`; a section keeps what `more` does not name."""
    sections = {key: base.get(key, {}) | value for key, value in more.items() if isinstance(value, dict)}
    return {**base, **more, **sections}


def trials_of(found: TunedArtefact) -> list[dict[str, Any]]:
    """The trials of the collaborator that takes steps; logistic regression, which takes none, is in every run."""
    return [trial for trial in found.trials if trial["collaborator"] == "kcm"]


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path)


def states(storage: Path) -> dict[str, int]:
    """When each state of a running search was trained, by its name."""
    return {path.stem: path.stat().st_mtime_ns for path in storage.glob("artefacts/tune/*/scratch/kcm-*.pt")}


def wait_for_states(storage: Path, count: int, timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    while len(states(storage)) < count:
        assert time.monotonic() < deadline, "the search never got so far"
        time.sleep(0.05)


def test_signal_gate_is_searched_and_read_back(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: the gate of signals is searched and read back with what it was fitted on."""
    learner = {"name": "replay", "memory": 20}
    found = search.run(learner=learner, tune={"gates": ["signals"], "num_trials": 1}).load("kcm")
    assert isinstance(found.gate.head, SignalsHead)
    assert "neighbours" in [signal.name for signal in found.gate.head.signals]
    given = search.features, search.outcomes, ("validate",)
    scores = np.concatenate([part.scores(found.gate) for part in parts_here(found.collaborator, *given)])
    monkeypatch.setattr(mapping, "FEW_ITEMS", 0)  # by other processes, however few the parts are
    elsewhere = [part.scores(found.gate) for part in scored_parts(found.collaborator, found.gate, *given)]
    np.testing.assert_allclose(np.concatenate(elsewhere), scores)
    assert scores.shape == found.validate_scores.shape
    assert not np.allclose(scores, found.validate_scores)  # those of the search are out of fold


@pytest.mark.slow
def test_a_killed_search_trains_nothing_again(search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: what was trained is not trained again, even where the driver had no time to say goodbye."""
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path)], start_new_session=True)
    try:
        wait_for_states(tmp_path, 3)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    before, after = states(tmp_path), dict[str, int]()
    assert len(before) < LONG["tune"]["num_trials"]

    def look_first(function: Callable[..., Any], *arguments: Any) -> Any:
        """Look at the states just before the search becomes an artefact."""
        after.update(states(tmp_path))
        return run_remotely(function, *arguments)

    monkeypatch.setattr("pipelines.stages.tune.run_remotely", look_first)
    found = search.run(**LONG)
    assert len(trials_of(found)) == LONG["tune"]["num_trials"]
    assert after.items() >= before.items()
    assert len(before) < len(after) <= LONG["tune"]["num_trials"]
