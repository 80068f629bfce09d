"""A payer's first large model: faults are found before anything is encoded, and missing answers asked for again."""

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kcm.certification.certificate import CertificateConfig
from kcm.certification.ledger import Ledger, question_delta
from kcm.config import parse_config
from kcm.errors import AssetError, ConfigError, DataError, KcmError
from kcm.tasks.preparation.build import write_sequence
from kcm.tasks.scenarios import TasksConfig
from pipelines.config import RunConfig
from pipelines.context import Attempt, Context
from pipelines.progress import Reporter
from pipelines.stages.outcomes import Outcomes
from pipelines.stages.stage import Plan, Stage, run_stages
from pipelines.stages.tasks import Tasks
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.sequence import SequenceArtefact
from tests.fake_upstream import FakeUpstream, Turn, label
from tests.pipelines.runs import run_of
from tests.tiny_bert import save_bert

NUM_ROWS = 60


class Encoded(Exception):
    """Raised where rows would be encoded."""


class Note(Artefact):
    kind = "note"


class Encoder(Stage):
    """Stands for the stage between the rows and the large model's answers."""

    stage, reads, writes = "features", ("sequence",), Note

    def build(self, done: Mapping[str, Artefact], context: Context) -> Artefact:
        raise Encoded


class Aside(Stage, Plan):
    """Writes what the large model's answers do not depend on."""

    stage, version, reads, writes = "aside", 1, ("sequence",), Note

    def write(self, attempt: Attempt, sequence: SequenceArtefact) -> None:
        (attempt.folder / "note").write_text("")


class Run:
    """A run whose large model is the fake server; `said` is its terminal."""

    def __init__(self, folder: Path, upstream: FakeUpstream) -> None:
        rows = [{"text": f"text {row}", "label": ("good", "bad")[row % 2]} for row in range(NUM_ROWS)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self._folder, self._upstream, self.said = folder, upstream, io.StringIO()
        self.encoder = str(save_bert(folder / "bert", ("good", "bad")))
        self.large: dict[str, Any] = {"api_key_env": None, "max_retries": 0, "max_failed": 0.1}

    def stages(self) -> tuple[RunConfig, Context]:
        server = {"adapter": "openai", "model": "big", "base_url": self._upstream.base_url}
        large = self.large if "adapter" in self.large else server | self.large
        reporter = Reporter(Console(file=self.said, width=200))
        sides = {"large": large, "encoder": {"model": self.encoder}}
        return run_of(self._folder, self._folder / "rows.jsonl", reporter, tasks={"salt": 1}, **sides)

    def outcomes(self) -> OutcomesArtefact:
        """The answers, made after another stage, so that the server is tried out before."""
        config, context = self.stages()
        *_, (_, artefact) = run_stages([Tasks.of(config), Aside(), Outcomes.of(config)], context)
        assert isinstance(artefact, OutcomesArtefact)
        return artefact

    def encode(self) -> None:
        config, context = self.stages()
        list(run_stages([Tasks.of(config), Encoder(), Outcomes.of(config)], context))


@pytest.fixture
def run(tmp_path: Path, upstream: FakeUpstream) -> Run:
    upstream.otherwise = lambda _: label("good")
    return Run(tmp_path, upstream)


def test_missing_recorded_answers_show_before_encoding(run: Run, tmp_path: Path) -> None:
    """Promise: rows without a recorded answer are told before anything is encoded."""
    answers = tmp_path / "answers.csv"
    run.large = {"adapter": "recorded", "path": str(answers)}
    rows = [f"rows-{row},good" for row in range(1, NUM_ROWS + 1)]
    answers.write_text("\n".join(["id,label", *rows[:-1]]))
    with pytest.raises(
        DataError, match=rf"1 of {NUM_ROWS} rows have no recorded answer, the first is 'rows-{NUM_ROWS}'"
    ):
        run.encode()
    answers.write_text("\n".join(["id,label", *rows]))
    with pytest.raises(Encoded):
        run.encode()


def test_failed_rows_are_asked_again_by_the_next_run(run: Run, upstream: FakeUpstream) -> None:
    """Promise: rows that the server failed on are asked again by the next run."""
    upstream.plan(label("good"), *[Turn(503, "gone")] * 3)
    first = run.outcomes()
    assert first.asked["failed"] == 3
    assert len(upstream.requests) == 1 + NUM_ROWS  # a question of no row, and all rows
    second = run.outcomes()
    assert len(upstream.requests) == 1 + NUM_ROWS + 1 + 3
    assert second.asked["failed"] == 0
    assert second.fingerprint != first.fingerprint  # or what was made of the first would be taken for made of both
    assert run.outcomes().fingerprint == second.fingerprint
    assert len(upstream.requests) == 1 + NUM_ROWS + 1 + 3


def test_lost_server_is_tried_and_reported_once(run: Run, upstream: FakeUpstream) -> None:
    """Promise: a server that is gone is tried once and said once and the run goes on."""
    upstream.plan(label("good"), *[Turn(503, "gone")] * 3)
    first = run.outcomes()
    upstream.otherwise = lambda _: Turn(503, "gone")
    num_asked = len(upstream.requests)
    assert run.outcomes().fingerprint == first.fingerprint
    assert len(upstream.requests) == num_asked + 1
    assert run.said.getvalue().count("3 rows still wait for an answer of the large model, which does not give one") == 1


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        (Turn(401, "no such key"), ConfigError, "the server refuses: status 401"),
        (Turn(503, "gone"), DataError, "does not answer a first question: status 503: gone"),
    ],
)
def test_refusing_server_is_found_before_encoding(
    run: Run, upstream: FakeUpstream, fault: Turn, error: type[KcmError], message: str
) -> None:
    """Promise: a server that refuses is found before anything is encoded."""
    upstream.otherwise = lambda _: fault
    with pytest.raises(error, match=message):
        run.encode()
    upstream.otherwise = lambda _: label("good")
    with pytest.raises(Encoded):
        run.encode()


def test_an_encoder_that_cannot_be_loaded_costs_no_call(run: Run, upstream: FakeUpstream, tmp_path: Path) -> None:
    """Promise: an encoder that is missing or does not load is found before the first paid call."""
    weights = Path(run.encoder) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AssetError):
        run.encode()
    run.encoder = str(tmp_path / "nowhere")
    with pytest.raises(AssetError, match="no such model folder"):
        run.encode()
    assert upstream.requests == []


def test_a_missing_key_is_found_before_anything_is_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THE_KEY", raising=False)
    run.large["api_key_env"] = "THE_KEY"
    with pytest.raises(ConfigError, match="THE_KEY is not set"):
        Outcomes.of(run.stages()[0]).check()


CONFIG = CertificateConfig(delta=0.1)


def sequence_of(store: ArtefactStore, file: Path, num_rows: int) -> SequenceArtefact:
    """The rows of a file as an artefact; every other one is a copy of the one before."""
    numbers = [number for number in range(num_rows // 2) for _ in range(2)]
    splits = ("train", "validate", "certify", "test")
    lines = (f"case {n} of it,t,{'abc'[n % 3]},{splits[n // 3 % 4]}" for n in numbers)
    file.write_text("\n".join(["text,task,label,split", *lines]), encoding="utf-8")
    source = {"kind": "files", "path": str(file), "task_column": "task", "split_column": "split"}
    config = parse_config(TasksConfig, {"source": source})
    rows = config.source.build(file.parent)
    recipe = Recipe("tasks", 1, {"file": file.name, "rows": num_rows})
    made = store.build(recipe, lambda folder, scratch: write_sequence(config, folder, rows, 0))[0]
    return made.as_a(SequenceArtefact)


def test_renamed_and_copied_runs_keep_counting_looks(tmp_path: Path) -> None:
    """Promise: renamed runs and files and a copied storage go on counting."""

    def spend(place: str, file: str, run: str, num_rows: int = 400) -> float:
        store = ArtefactStore(tmp_path / place)
        units = sequence_of(store, tmp_path / file, num_rows).ledger_units
        return Ledger(store.ledger).look(units, delta=CONFIG.delta, digest=run, purpose="").spend

    first = [spend("first", "rows.csv", "reviews"), spend("first", "rows.csv", "renamed")]
    first += [spend("first", "renamed.csv", "another file"), spend("first", "rows.csv", "reviews")]
    assert first == [question_delta(0.1, number) for number in (1, 2, 3, 1)]
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert spend("copy", "moved.csv", "elsewhere") == question_delta(0.1, 4)
    assert spend("copy", "more.csv", "of more rows", 800) == question_delta(0.1, 5)
