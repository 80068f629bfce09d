"""Large models that are asked, through the stages: a weak one that the router sees through, and a paid server."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.sequences import TaskSequence
from kcm.api.cascade import load_cascade
from kcm.bundle.answers import Input
from kcm.config import load_config
from kcm.inputs.content import Content
from kcm.large import Item
from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel
from kcm.large.prompts import sanitized
from kcm.large.response_cache import ResponseStore
from pipelines.config import RunConfig
from pipelines.run import run
from tests.fake_upstream import FakeUpstream, Turn, label
from tests.ports import free_port
from tools.assets import fetch

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

CONFIG = Path(__file__).parents[3] / "jobs/configs/reviews.yaml"
SERVER = Path(__file__).parents[2] / "language_model_server.py"
NUM_ROWS = 240
SMOLLM = "SmolLM2-135M-Instruct-GGUF"
QUICK = {
    "collaborators": "[kcm]",
    "tasks.max_rows_per_task": "null",
    "tasks.fractions": "{train: 0.40, validate: 0.15, certify: 0.27, test: 0.18}",
    "learner": "{name: replay, memory: 1000, batch_size: 64}",
    "network": "{}",
    "train": "{num_epochs: 10, learning_rate: 0.001, weight_decay: 0.1}",
    "distill": "{large_weight: 3.0, judge_weight: 0.5, keep_confidence: 0.98}",
    "tune.num_trials": 2,
    "tune.gates": "[confidence]",
    "tune.max_loss": 0.005,
    "tune.learning_rates": "[0.001]",
    "tune.large_weights": "[0.0]",
    "tune.judge_weights": "[0.0]",
    "cluster.num_encoders": 1,
    "cluster.num_workers": 1,
}
SALT = {"tasks.salt": 1}


@pytest.fixture(scope="module")
def tweets(assets_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tweets that people found clearly good or clearly bad, as a file of one's own."""
    lines = (fetch("reviews", assets_dir) / "tweets_GroundTruth.txt").read_text(encoding="utf-8").splitlines()
    rows = [(float(rating), text.strip()) for _, rating, text in (line.split("\t", 2) for line in lines)]
    file = tmp_path_factory.mktemp("rows") / "tweets.jsonl"
    clear = [(rating, text) for rating, text in rows if abs(rating) > 2]
    with file.open("w", encoding="utf-8") as out:
        for rating, text in clear[:NUM_ROWS]:
            out.write(
                json.dumps({"text": text, "label": "positive" if rating > 0 else "negative", "task": "tweets"}) + "\n"
            )
    return file


def config(large: str, rows: Path, storage: Path, assets_dir: Path, **more: Any) -> RunConfig:
    source = f"{{kind: files, path: {rows}, task_column: task}}"
    values = {"tasks.source": source, "large": large, "storage_path": storage, "assets_path": assets_dir}
    return load_config(RunConfig, CONFIG, [f"{key}={value}" for key, value in (QUICK | values | more).items()])


class LanguageModel:
    """SmolLM2-135M behind llama.cpp's server, a process of its own, which may be killed and started again."""

    def __init__(self, gguf: Path) -> None:
        self.port, self.gguf = free_port(), gguf
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(SERVER), str(self.gguf), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        assert str(self.port) in self.process.stdout.readline()  # it says when it is ready

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def language_model(assets_dir: Path) -> Iterator[LanguageModel]:
    server = LanguageModel(fetch(SMOLLM, assets_dir) / "SmolLM2-135M-Instruct.Q4_1.gguf")
    yield server
    server.kill()


def asked_at(server: LanguageModel, **more: Any) -> OpenAiConfig:
    """A patient client of the server."""
    address = {"base_url": f"http://127.0.0.1:{server.port}/v1", "api_key_env": None}
    return OpenAiConfig(**{"model": "smollm", **address, "max_retries": 60, "max_wait_s": 2} | more)


@pytest.mark.slow
def test_killed_asking_resumes_and_asks_nothing_twice(
    language_model: LanguageModel, tweets: Path, tmp_path: Path
) -> None:
    """llama.cpp's own server: labels with probabilities, more questions than slots, a restart under way."""
    texts = [json.loads(line)["text"] for line in tweets.read_text(encoding="utf-8").splitlines()[:16]]
    settings = asked_at(language_model)
    paid = ResponseStore.in_file(tmp_path / "paid.sqlite")
    model = OpenAiModel(settings, ("negative", "positive"), paid)
    items = [Item(str(number), Content(text)) for number, text in enumerate(texts)]
    first = model.answer(items[:4])
    asked = [model.ask(item) for item in items]
    language_model.kill()  # while eight questions are under way
    language_model.start()
    answers = [future.result() for future in asked]
    assert all(answer.error is None and answer.label in (0, 1) for answer in answers)
    assert all(answer.probabilities is not None and answer.cost.tokens > 20 for answer in answers)
    assert [answer.label for answer in answers[:4]] == [answer.label for answer in first]
    language_model.kill()
    again = OpenAiModel(settings, ("negative", "positive"), paid).answer(items)
    assert [answer.label for answer in again] == [answer.label for answer in answers]
    language_model.start()


class Oracle:
    """A server that knows the tweets, and is right about three in four."""

    def __init__(self, rows: Path) -> None:
        records = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
        self.truth = {sanitized(record["text"], 4000): record["label"] for record in records}
        self.said: dict[str, str] = {}

    def __call__(self, body: dict[str, Any]) -> Turn:
        _, user = (message["content"] for message in body["messages"])
        text = user.removeprefix("<<<\n").removesuffix("\n>>>")
        draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100
        right = self.truth.get(text, "positive")  # the first question is of no row
        wrong = {"positive": "negative", "negative": "positive"}[right]
        answer = right if draw < 75 else wrong
        self.said[text] = answer
        return label(answer)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by tests that need the features, and no paid answers of each other: their servers differ."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture
def oracle(upstream: FakeUpstream, tweets: Path, monkeypatch: pytest.MonkeyPatch) -> Oracle:
    """The server behind `upstream`."""
    monkeypatch.setenv("KCM_TEST_KEY", "secret")
    upstream.otherwise = Oracle(tweets)
    return upstream.otherwise


def test_answers_travel_through_stages_into_the_bundle(
    oracle: Oracle, upstream: FakeUpstream, tweets: Path, assets_dir: Path, storage: Path
) -> None:
    """Answers are measured and served, and nothing is paid for twice."""
    server = f"{{adapter: openai, model: big, base_url: {upstream.base_url}, api_key_env: null, input_price: 1.0}}"
    mild = {"certificate.epsilon": 0.4}
    settings = config(server, tweets, storage, assets_dir, **SALT, **mild)
    result = run(settings)

    rows = TaskSequence.load(Path(result["artefacts"]["tasks"])).tasks[0].rows.to_pylist()
    texts = [sanitized(row["text"], 4000) for row in rows if row["split"] == "test"]
    right = [oracle.said[text] == oracle.truth[text] for text in texts]
    assert result["kcm"]["overall"]["large_accuracy"] == pytest.approx(np.mean(right))
    report = Path(result["report"]).read_text(encoding="utf-8")
    wrong = result["kept_wrong"]
    assert wrong["num_rows"] == sum(each["kept_wrong"] for each in result["kcm"]["labels"])
    whole = [row for row in wrong["rows"] if not row["text"].endswith("…")]
    truth = {" ".join(text.split()): right for text, right in oracle.truth.items()}
    assert all(row["label"] == truth[" ".join(sanitized(row["text"], 4000).split())] != row["small"] for row in whole)
    assert f"and is wrong: {len(wrong['rows'])} of {wrong['num_rows']}, the surest first" in report

    asked = len(upstream.requests)
    assert len({json.dumps(body) for body in upstream.requests}) == asked
    assert all(run(settings)["cached"].values())
    assert len(upstream.requests) == asked

    folder = Path(result["artefacts"]["register"]) / "bundle"
    assert isinstance(settings.large, OpenAiConfig)
    cascade = load_cascade(folder, assets_dir, upstreams=[settings.large.upstream])
    inputs = [Input(Content(row["text"])) for row in rows]
    answers = cascade.answer(inputs)
    escalated = [each for each, answer in zip(inputs, answers, strict=True) if answer.route == "large"]
    assert 0 < len(escalated) < len(inputs)
    assert {body["messages"][1]["content"] for body in upstream.requests[asked:]} == {
        f"<<<\n{sanitized(each.content.text, 4000)}\n>>>" for each in escalated
    }


def test_spent_budget_gives_a_result_and_more_budget_resumes(
    oracle: Oracle, upstream: FakeUpstream, tweets: Path, assets_dir: Path, storage: Path
) -> None:
    """The rows that the budget did not reach are failures with this reason, and only they are asked later."""
    server = "{{adapter: openai, model: big, base_url: {}, api_key_env: KCM_TEST_KEY, max_calls: {}, max_failed: 1}}"
    few = config(server.format(upstream.base_url, 100), tweets, storage, assets_dir, **SALT)
    outcomes = Path(run(few, until="outcomes")["artefacts"]["outcomes"])
    assert len(upstream.requests) == 100
    assert json.loads((outcomes / "large.json").read_text())["failed"] == NUM_ROWS - 99  # a first question is of no row
    enough = config(server.format(upstream.base_url, 1000), tweets, storage, assets_dir, **SALT)
    outcomes = Path(run(enough, until="outcomes")["artefacts"]["outcomes"])
    assert len(upstream.requests) == NUM_ROWS + 2
    assert not pq.read_table(outcomes / "task-0000.parquet")["large_error"].to_numpy().any()
    assert b"secret" not in (storage / "paid.sqlite").read_bytes()
