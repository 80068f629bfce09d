"""A stage is what it declares: its part of the configuration is its fingerprint, what it names is what it is given."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from pydantic import Field

from kcm.config import Config, parse_config
from kcm.encoders.text import TextEncoderConfig
from kcm.large.adapters.openai import OpenAiConfig
from pipelines.cluster.config import ClusterConfig
from pipelines.config import RunConfig
from pipelines.context import Attempt, Context
from pipelines.run import STAGES
from pipelines.stages.stage import Plan, Stage, run_stages
from pipelines.store.artefact import MANIFEST, Artefact, ArtefactStore, Recipe, write_json
from pipelines.store.features import FACTS
from pipelines.store.outcomes import write_identity
from pipelines.store.sequence import Names, SequenceArtefact


class Component(Config):
    operational: ClassVar[frozenset[str]] = frozenset({"batch_size"})

    model: str = "m"
    batch_size: int = 1


class Section(Config):
    encoder: Component = Component()
    others: tuple[Component, ...] = (Component(),)
    rate: float = 0.1


class Run(Config):
    speech: Section = Section()
    word: str = "one"
    louder: bool = False
    where: str = "here"


class Text(Artefact):
    kind = "text"

    @property
    def text(self) -> str:
        return (self.folder / "text").read_text()


class Say(Stage, Plan):
    stage, version, writes = "say", 1, Text
    published: ClassVar[list[str]] = []

    word: str
    speech: Section
    where: str = Field(exclude=True)

    def write(self, attempt: Attempt) -> None:
        (attempt.folder / "text").write_text(self.word)

    def publish(self, artefact: Text, context: Context) -> None:
        self.published.append(artefact.text)


class Shout(Stage, Plan):
    stage, version, reads, writes = "shout", 1, ("text",), Text

    louder: bool

    def applies(self) -> bool:
        return self.louder

    def write(self, attempt: Attempt, text: Text) -> None:
        (attempt.folder / "text").write_text(text.text.upper())


class Repeat(Stage, Plan):
    stage, version, reads, writes = "repeat", 1, ("text",), Text
    prepared: ClassVar[list[str]] = []

    def prepare(self, context: Context, text: Text) -> None:
        self.prepared.append(text.text)

    def write(self, attempt: Attempt, text: Text) -> None:
        (attempt.folder / "text").write_text(text.text * 2)


class Note(Artefact):
    kind = "note"


class Aside(Stage, Plan):
    stage, version, reads, writes = "aside", 1, ("text",), Note

    def write(self, attempt: Attempt, text: Text) -> None:
        (attempt.folder / "note").write_text("")


@pytest.fixture
def artefacts(tmp_path: Path) -> Any:
    def run(folder: Path, **values: Any) -> dict[str, Any]:
        stages = [stage.of(Run(**values)) for stage in (Say, Shout, Repeat)]
        return dict(run_stages(stages, Context("run", ArtefactStore(folder), folder)))

    return partial(run, tmp_path)


def test_stage_gets_the_newest_artefact_of_its_kind(artefacts) -> None:
    """A stage that this run has not is passed over: what reads its kind gets what stood there before."""
    assert artefacts()["repeat"].text == "oneone"
    louder = artefacts(louder=True)
    assert louder["repeat"].text == "ONEONE"
    assert louder["repeat"].manifest["inputs"] == {"shout": louder["shout"].fingerprint}


def test_a_stage_is_prepared_with_the_artefact_that_it_will_read(tmp_path: Path) -> None:
    def prepared(run: Run, *between: type[Stage]) -> list[str]:
        """What `Repeat` was prepared with when the first of the stages between was done."""
        Repeat.prepared.clear()
        stages = [stage.of(run) for stage in (Say, *between, Repeat)]
        for name, _ in run_stages(stages, Context("run", ArtefactStore(tmp_path), tmp_path)):
            if name == between[-1].stage:
                break
        return Repeat.prepared

    assert prepared(Run(), Aside) == ["one"]
    assert prepared(Run(louder=True), Shout, Aside) == ["ONE"]  # not with what `Shout` was about to write anew
    assert prepared(Run(), Shout, Aside) == ["one"]  # which this run has not


def test_deciding_fields_are_in_the_fingerprint_at_any_depth(artefacts) -> None:
    """Promise: every field that decides is in the fingerprint at any depth."""
    before = artefacts()["say"]
    speech = {"encoder": {"model": "m"}, "others": [{"model": "m"}], "rate": 0.1}
    assert before.manifest["section"] == {"word": "one", "speech": speech}
    for more in ({"word": "two"}, {"speech": {"rate": 0.2}}, {"speech": {"encoder": {"model": "n"}}}):
        assert artefacts(**more)["say"] != before
    quicker = {"batch_size": 9}
    for more in ({"where": "there"}, {"speech": {"encoder": quicker}}, {"speech": {"others": (quicker,)}}):
        assert artefacts(**more)["say"] == before


BASE: dict[str, Any] = {
    "name": "golden",
    "tasks": {},
    "encoder": {"model": "small", "pooling": "mean", "batch_size": 7},
    "learner": {"name": "replay"},
    "tune": {"num_trials": 3, "gates": ["confidence", "signals"]},
    "seed": 3,
    "collaborators": ["kcm", "mcm"],
    "cluster": {"num_workers": 1},
}
SERVER = {"adapter": "openai", "model": "big", "api_key_env": None, "max_calls": 7}


class Fingerprints:
    """As much of a run as it takes to know its fingerprints; nothing is computed."""

    cluster = ClusterConfig()
    tracking = None

    def __init__(self, folder: Path) -> None:
        self.assets_path, self.found = folder, dict[str, str]()
        self.done: dict[str, Artefact] = {"sequence": SequenceArtefact("tasks", "tasks-fp", folder / "tasks/tasks-fp")}
        self._root = folder
        self.store = SimpleNamespace(find=lambda recipe: None)  # nothing is finished

    def build(self, recipe: Recipe, write: Callable[..., None], *, label: str = "", **more: Any) -> Artefact:
        folder = self._root / recipe.stage / recipe.fingerprint
        write_json(folder / MANIFEST, recipe.as_json())
        write_identity(folder, "identity")
        write_json(folder / FACTS, {"runtime": None, "preview": {}})
        self.found[f"{label}/{recipe.stage}" if label else recipe.stage] = recipe.fingerprint
        return Artefact(recipe.stage, recipe.fingerprint, folder)

    def of(self, *stages: Stage) -> dict[str, str]:
        for stage in stages:
            if stage.applies():
                self.done[stage.writes.kind] = stage.build(self.done, self)
        return self.found


@pytest.fixture
def fingerprints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fingerprints:
    monkeypatch.setattr(TextEncoderConfig, "identity", lambda self, assets: f"identity of {self.kind}")
    monkeypatch.setattr(OpenAiConfig, "identity", lambda self, *given, **more: "identity")
    monkeypatch.setattr(SequenceArtefact, "names", Names(("t",), ("a", "b"), None))
    return Fingerprints(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster": {"num_workers": 5, "num_encoders": 9}},
        {"assets_path": "/elsewhere"},
        {"encoder": {"model": "small", "pooling": "mean", "batch_size": 8}},
        {"encoder": {"model": "small", "pooling": "mean", "batch_size": 7, "runtime": "onnx"}},
        {"large": SERVER | {"num_concurrent": 9}},
        {"tracking": {"uri": "sqlite:////tmp/another.db"}},
    ],
)
def test_where_and_how_fast_the_work_runs_changes_no_fingerprint(changes, fingerprints, tmp_path) -> None:
    first, second = (parse_config(RunConfig, BASE | {"large": SERVER} | more) for more in ({}, changes))
    stages = STAGES[1:]
    before = dict(fingerprints.of(*(stage.of(first) for stage in stages)))
    again = Fingerprints(tmp_path / "again")
    assert again.of(*(stage.of(second) for stage in stages)) == before


def test_every_stage_reads_an_earlier_output_by_name() -> None:
    """Promise: every stage reads what an earlier one writes and takes its part by name."""
    written, run = set[str](), parse_config(RunConfig, BASE | {"large": SERVER})
    for stage in STAGES:
        assert set(stage.reads) <= written
        assert all(
            hasattr(run, name)
            for name in set(stage.model_fields) - {"parent", "chosen", "choose", "updated", "certifies", "grows"}
        )
        written.add(stage.writes.kind)


@pytest.mark.parametrize(
    ("cluster", "num_rows", "is_local", "starts"),
    [
        ({}, 50_000, True, False),
        ({}, 50_001, True, True),
        ({"in_process_rows": 0}, 1, True, True),
        ({"gpus_per_worker": 1}, 1, True, False),
        ({}, 1, False, True),
    ],
)
def test_few_rows_start_no_cluster(cluster, num_rows, is_local, starts, tmp_path, monkeypatch) -> None:
    """A cluster that is there is used however few the rows are; a GPU of this machine needs none."""
    monkeypatch.setattr("pipelines.stages.stage.starts_local", lambda config: is_local)
    monkeypatch.setattr(SequenceArtefact, "has_at_most", lambda self, most: num_rows <= most)
    context: Any = SimpleNamespace(cluster=ClusterConfig(**cluster))
    plan = Say.of(Run())
    assert plan.starts_cluster(context, sequence=SequenceArtefact("tasks", "fp", tmp_path)) == starts
