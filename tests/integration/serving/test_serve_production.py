"""The served cascade while versions change and processes die: two replicas of each deployment, deployed from a file."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import ray
from mlflow import MlflowClient
from ray import serve

from jobs.commands.loop.turns import promote
from jobs.models import served_model, served_source
from jobs.service import ServiceSettings
from kcm.api.cascade import load_cascade
from kcm.bundle.answers import Answer, Input
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.config import load_config
from kcm.inputs.content import Content
from pipelines.config import RunConfig
from pipelines.registry.champion import Pointer
from pipelines.registry.promote import Champions
from pipelines.serve.deploy.app import build_app, start
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.tables import DECISIONS, FEEDBACK
from pipelines.store.artefact import ArtefactStore
from pipelines.tracking.config import CHAMPION
from pipelines.tracking.tracking import Tracking
from tests.champions import registered
from tests.free_port import free_port
from tests.integration.serving.load import Load
from tests.ray_private import session_folder

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

REVIEWS = Path(__file__).parents[3] / "jobs" / "configs" / "reviews.yaml"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, quick_bundle: Callable[..., Path], assets_dir: Path) -> RunConfig:
    """Two registered versions: the champion splits, the second keeps everything."""
    storage = tmp_path_factory.mktemp("storage")
    port = free_port()
    two = {"num_replicas": 2, "cpus": 0.2}
    values = {"port": port, **two, "large": two, "audit": {"share": 0.5, "seed": 0}}
    overrides = [f"storage_path={storage}", f"assets_path={assets_dir}", f"serve={json.dumps(values)}"]
    config = load_config(RunConfig, REVIEWS, overrides)
    tracking = Tracking.open(config.tracking, storage, name=config.name, key="key")
    bundles = {
        "first": quick_bundle(),
        "second": quick_bundle(policy=Policy(decision=KEEP_ALL)),
    }
    store = ArtefactStore(config.storage_path)
    champions = Champions(Pointer(store.control, config.name), tracking.uri, config.name)
    for number, bundle in enumerate(bundles.values(), 1):
        champion = registered(store, bundle, f"{config.name}/{number}")
        assert tracking.register(config.name, bundle, champion.bundle) == str(number)
        if number == 1:
            champions.introduce(champion)
    return config


@pytest.fixture(scope="module")
def url(config: RunConfig) -> Iterator[str]:
    settings, source = ServiceSettings.of(config), served_source(config, None, None)
    yield start(build_app(source, settings.serve, config.assets_path), settings.serve, ready_timeout_s=400)
    serve.shutdown()


@pytest.fixture(scope="module")
def expected(config: RunConfig, sentences: list[str]) -> list[Answer]:
    """What the first version answers, in process; sentences near the threshold are left out of comparisons."""
    cascade = load_cascade(served_model(config, "reviews/1").bundle, config.assets_path)
    answers = cascade.answer([Input(Content(text)) for text in sentences])
    return [answer for answer in answers if isinstance(answer, Answer)]


def load_on(url: str, sentences: list[str]) -> Load:
    """Three callers that ask for one sentence at a time, and once more where that fails."""

    def ask(client: httpx.Client, number: int) -> tuple[int, dict[str, Any]]:
        index = number % len(sentences)
        body = {"inputs": [{"text": sentences[index]}]}
        try:
            response = client.post(f"{url}/v1/predict", json=body).raise_for_status()
        except httpx.HTTPError:
            response = client.post(f"{url}/v1/predict", json=body).raise_for_status()
        return index, response.json()

    return Load(ask, callers=3)


def wrong(load: Load, expected: list[Answer]) -> list[Any]:
    """Answers of the first version that differ from those in process, but for items at the threshold."""
    found = []
    for index, response in load.answered:
        (answer,), mine = response["answers"], expected[index]
        if response["model_version"] != "reviews/1" or answer["degraded"]:
            continue
        assert mine.threshold is not None
        if abs(mine.gate_score - mine.threshold) > 1e-4 and (answer["route"], answer["label"]) != (
            mine.route,
            mine.label,
        ):
            found.append((index, answer))
    return found


def test_an_escalated_answer_and_its_feedback_are_in_the_log(url: str, config: RunConfig, sentences: list[str]) -> None:
    """Promise: what was acknowledged is stored, under the id that the service gave, with the client's beside it."""
    body = {"inputs": [{"text": text} for text in sentences[:20]]}
    response = httpx.post(f"{url}/v1/predict", json=body, headers={"x-request-id": "mine"}, timeout=60).json()
    labels = [{"item": 3, "label": "positive"}]
    request_id = response["request_id"]
    for _ in range(2):
        stored = httpx.post(f"{url}/v1/feedback", json={"request_id": request_id, "labels": labels}, timeout=60)
        assert (stored.status_code, stored.json()["stored"]) == (200, 1)
    made_up = httpx.post(f"{url}/v1/feedback", json={"request_id": "mine", "labels": labels}, timeout=60)
    assert made_up.status_code == 404
    log = DecisionLog(f"sqlite:///{config.storage_path}/feedback.db", 5.0)
    assert [(row["item"], row["label"]) for row in log.read(FEEDBACK)] == [(3, "positive")]
    escalated = [index for index, answer in enumerate(response["answers"]) if answer["route"] == "large"]
    decisions = [row for row in log.read(DECISIONS) if row["request_id"] == request_id]
    assert [row["route"] for row in decisions] == [answer["route"] for answer in response["answers"]]
    assert {(row["client_request_id"], row["audit_share"]) for row in decisions} == {("mine", 0.5)}
    assert [row["item"] for row in decisions if row["large_label"] and row["state"] is None] == escalated != []
    drawn = {row["item"] for row in decisions if row["state"]}
    assert drawn <= set(range(20)) - set(escalated)


def test_versions_change_under_load_without_a_failed_or_mixed_request(
    url: str, config: RunConfig, sentences: list[str], expected: list[Answer]
) -> None:
    """Promise: promotion and rollback fail no request, and every request is answered by one version."""
    client = MlflowClient(config.tracking.uri_in(config.storage_path))
    with load_on(url, sentences) as load:
        load.wait_for(5)
        assert promote(config, "2") == {"version": "reviews/2", "served": True}
        assert int(client.get_model_version_by_alias(config.name, CHAMPION).version) == 2
        load.wait_for(10)
        second = httpx.get(f"{url}/v1/model").json()["model_version"]
        promote(config, "reviews/1")
        load.wait_for(5)
    assert second == "reviews/2"
    assert int(client.get_model_version_by_alias(config.name, CHAMPION).version) == 1
    assert load.failed == []
    assert {response["model_version"] for _, response in load.answered} == {"reviews/1", "reviews/2"}
    kept_all = [response for _, response in load.answered if response["model_version"] == "reviews/2"]
    assert {answer["route"] for response in kept_all for answer in response["answers"]} == {"small"}
    assert wrong(load, expected) == []


def test_the_log_is_json_and_holds_ids_but_no_texts(url: str, sentences: list[str]) -> None:
    """Promise: what happened to a request can be found by its id, and no input is in any log."""
    httpx.post(f"{url}/v1/predict", json={"inputs": [{"text": sentences[0]}]}, headers={"x-request-id": "to-find"})
    folder = session_folder() / "logs" / "serve"
    lines: list[dict[str, Any]] = []
    deadline = time.monotonic() + 30
    while not lines and time.monotonic() < deadline:
        written = "".join(path.read_text() for path in folder.glob("replica_kcm_door_*.log"))
        lines = [json.loads(line) for line in written.splitlines() if '"to-find"' in line]
        time.sleep(0.1)
    (line,) = lines
    assert (line["path"], line["status"], line["model_version"]) == ("/v1/predict", 200, "reviews/1")
    written += "".join(path.read_text() for path in folder.glob("replica_kcm_*.log"))
    assert not any(sentence in written for sentence in sentences if len(sentence) > 20)


def test_everything_that_is_counted_can_be_read(url: str) -> None:
    """Promise: Ray exports what all replicas have counted, and what audits have found."""
    missing = {"ray_kcm_items_total", 'route="large"', 'version="reviews/2"', "ray_kcm_stage_seconds_bucket"}
    missing |= {'outcome="agree"', 'outcome="disagree"', "ray_kcm_audited_disagreement", "ray_kcm_audited_regret"}
    pages = [f"http://{each['NodeManagerAddress']}:{each['MetricsExportPort']}/metrics" for each in ray.nodes()]
    deadline = time.monotonic() + 150  # workers report every few seconds, each in its own time
    while missing and time.monotonic() < deadline:
        found = "".join(httpx.get(page, timeout=30).text for page in pages)
        missing = {name for name in missing if name not in found}
        time.sleep(0.5)
    assert not missing


@pytest.mark.parametrize("deployment", ["door", "large"])
@pytest.mark.slow
def test_a_replica_killed_under_load_costs_no_answer(
    url: str, sentences: list[str], expected: list[Answer], deployment: str
) -> None:
    """Promise: with two replicas and one retry 99% are answered, none of them wrongly; degraded answers say so."""
    with load_on(url, sentences) as load:
        load.wait_for(20)
        os.kill(replicas(deployment)[0].pid, signal.SIGKILL)
        load.wait_for(80)
    assert len(load.failed) <= 0.01 * (len(load.answered) + len(load.failed)), load.failed
    assert wrong(load, expected) == []
    degraded = [answer for _, response in load.answered for answer in response["answers"] if answer["degraded"]]
    assert {answer["route"] for answer in degraded} <= {"small_degraded"}


def replicas(deployment: str) -> list[psutil.Process]:
    """The replicas' processes, of this session's cluster alone."""
    title = f"ray::ServeReplica:kcm:{deployment}"
    own = psutil.Process().children(recursive=True)
    return [process for process in own if process.is_running() and title in " ".join(process.cmdline())]
