"""The served cascade while versions change and processes die: two replicas of each deployment."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import ray
from ray import serve

from jobs.models import served_source
from jobs.settings import ServiceSettings
from kcm.api.cascade import load_cascade
from kcm.bundle.answers import Answer, Input
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.config import load_config
from kcm.inputs.content import Content
from pipelines.config import RunConfig
from pipelines.registry.champion import Champion, Pointer
from pipelines.registry.promote import Champions
from pipelines.serve.deploy.app import build_app, start
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.tables import DECISIONS
from pipelines.store.artefact import ArtefactStore
from pipelines.tracking.tracking import Tracking
from tests.champions import registered
from tests.integration.serving.load import Load
from tests.ports import free_port
from tests.ray_private import session_folder
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

REVIEWS = Path(__file__).parents[3] / "jobs" / "configs" / "reviews.yaml"
KEYS = {f"caller-{number}": f"key of caller {number}" for number in range(12)}
ITEMS = 3  # of a request
NUM_PROMOTIONS = int(os.environ.get("KCM_RELEASE_CHANGES", "2"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, assets_dir: Path) -> RunConfig:
    storage = tmp_path_factory.mktemp("storage")
    keys_file = storage / "keys"
    keys_file.write_text("".join(f"{name} {sha256(key.encode()).hexdigest()}\n" for name, key in KEYS.items()))
    two = {"num_replicas": 2, "cpus": 0.2}
    values = {"port": free_port(), **two, "audit": {"share": 0.5, "seed": 0}}
    # What is promised does not depend on how fast the machine is.
    values |= {"timeout_s": 100.0, "judge_timeout_s": 50.0, "feedback": {"timeout_s": 30.0}}
    values |= {"large": two | {"timeout_s": 50.0, "attempt_timeout_s": 25.0}}
    values |= {"auth": {"keys_file": str(keys_file)}, "application": "reviews"}
    return load_config(
        RunConfig,
        REVIEWS,
        [f"storage_path={storage}", f"assets_path={assets_dir}", f"serve={json.dumps(values)}"],
    )


@dataclass(frozen=True)
class Versions:
    """Two registered versions of the storage that the service follows, and its pointer."""

    store: ArtefactStore
    pointer: Pointer
    first: Champion  # keeps half of the sentences
    second: Champion  # keeps everything, so that its answers differ
    folder: Path  # of the first bundle

    def promote(self, champion: Champion) -> str | None:
        """Swap the pointer, wait for every replica, and give the reason of one that refuses."""
        current = self.pointer.current()
        assert current is not None
        now = self.pointer.swap(current.number, champion)
        assert now is not None
        reports = self.pointer.reports.settled(now.record, 300)
        assert len(reports) == 2  # two HTTP replicas
        refusals = (report.refused.get(champion.version) for report in reports if report.version != champion.version)
        return next(refusals, None)


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """A replica that says nothing for a while on a busy machine is not dead to a promotion."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.registry.replicas.SILENT_S", 120.0)
        yield


@pytest.fixture(scope="module")
def served(config: RunConfig, quick_bundle: Callable[..., Path]) -> Versions:
    """Both are in MLflow too; the first is the champion."""
    store = ArtefactStore(config.storage_path)
    tracking = Tracking.open(config.tracking, config.storage_folder, name=config.name, key="key")
    folders = quick_bundle(), quick_bundle(policy=Policy(decision=KEEP_ALL))
    first, second = (registered(store, folder, f"reviews/{number}") for number, folder in enumerate(folders, 1))
    for folder, champion in zip(folders, (first, second), strict=True):
        assert champion.version == f"reviews/{tracking.register(config.name, folder, champion.bundle)}"
    pointer = Pointer(store.control, config.name)
    Champions(pointer, tracking.uri, config.name).introduce(first)
    return Versions(store, pointer, first, second, folders[0])


@pytest.fixture(scope="module")
def url(config: RunConfig, served: Versions) -> Iterator[str]:
    source, settings = served_source(config, None, None), ServiceSettings.of(config)
    app = build_app(source, settings.serve, config.assets_path)
    yield start(app, settings.serve, ready_timeout_s=400)
    serve.shutdown()


@pytest.fixture(autouse=True)
def first_again(url: str, served: Versions) -> Iterator[None]:
    """A test that fails halfway leaves no other champion to the next one."""
    yield
    current = served.pointer.current()
    if current is None or current.champion.version != served.first.version:
        served.promote(served.first)


@pytest.fixture(scope="module")
def expected(served: Versions, config: RunConfig, sentences: list[str]) -> list[Answer]:
    answers = load_cascade(served.folder, config.assets_path).answer([Input(Content(text)) for text in sentences])
    return [answer for answer in answers if isinstance(answer, Answer)]


def key_of(caller: str = "caller-0") -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[caller]}"}


@dataclass(frozen=True)
class Asked:
    """What a caller was answered on the sentences from `place` on, and when it had asked."""

    caller: str
    place: int
    response: dict[str, Any]
    asked_at: float


def load_on(url: str, sentences: list[str], tries: int = 1) -> Load:
    """Four threads for twelve callers; a request that fails is repeated where there are more tries."""

    def ask(client: httpx.Client, number: int) -> Asked:
        caller = f"caller-{number % len(KEYS)}"
        place = (number * ITEMS) % (len(sentences) - ITEMS)
        body = {"inputs": [{"text": text} for text in sentences[place : place + ITEMS]]}
        asked_at = time.monotonic()
        for left in reversed(range(tries)):
            try:
                response = client.post(f"{url}/v1/predict", json=body, headers=key_of(caller)).raise_for_status()
                break
            except httpx.HTTPError:
                if not left:
                    raise
        return Asked(caller, place, response.json(), asked_at)

    return Load(ask, callers=4)


def asked_since(moment: float, load: Load) -> list[Asked]:
    """Without the requests that were under way by then, however long they took."""
    return [asked for asked in load.answered if asked.asked_at > moment]


def ids(load: Load) -> set[str]:
    return {asked.response["request_id"] for asked in load.answered}


def versions(load: Load) -> set[str]:
    return {asked.response["model_version"] for asked in load.answered}


def mixed(load: Load, expected: list[Answer], second: Champion) -> list[Any]:
    """Requests with an answer that is not that of the version they name; items at the threshold are left out."""
    found = []
    for asked in load.answered:
        for offset, answer in enumerate(asked.response["answers"]):
            mine = expected[asked.place + offset]
            assert mine.threshold is not None
            near = abs(mine.gate_score - mine.threshold) < 1e-4
            if asked.response["model_version"] == second.version:
                wrong = answer["route"] != "small"
            else:
                wrong = not near and not answer["degraded"] and answer["route"] != mine.route
            if wrong:
                found.append((asked.place, asked.response["model_version"], answer))
    return found


def card(url: str) -> dict[str, Any]:
    return httpx.get(f"{url}/v1/model", headers=key_of(), timeout=120).json()


def post(url: str, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/{path}", json=body, headers=key_of() | headers, timeout=120)


def test_the_log_is_json_and_holds_ids_but_no_texts(url: str, sentences: list[str]) -> None:
    """Promise: what happened to a request can be found by its id, and no input is in any log."""
    post(url, "predict", {"inputs": [{"text": sentences[0]}]}, **{"x-request-id": "to-find"})
    folder = session_folder() / "logs" / "serve"

    def found() -> list[str]:
        """Whole lines with its id."""
        written = "".join(path.read_text() for path in folder.glob("replica_kcm_http_*.log"))
        return [line for line in written.splitlines(keepends=True) if '"to-find"' in line and line.endswith("\n")]

    wait_until(found)
    line = json.loads(*found())
    assert (line["path"], line["status"], line["model_version"]) == ("/v1/predict", 200, "reviews/1")
    written = "".join(path.read_text() for path in folder.glob("replica_kcm_*.log"))
    assert not any(sentence in written for sentence in sentences if len(sentence) > 20)


def test_promotion_and_rollback_under_load(
    url: str, config: RunConfig, served: Versions, sentences: list[str], expected: list[Answer]
) -> None:
    """Promise: no request fails or is answered by two versions."""
    first, second = served.first, served.second
    log = DecisionLog(f"sqlite:///{config.storage_path}/feedback.db", 30.0)
    with load_on(url, sentences) as load:
        load.wait_for(4)
        assert versions(load) == {first.version}
        for number in range(NUM_PROMOTIONS):
            challenger = (second, first)[number % 2]
            assert served.promote(challenger) is None
            load.wait_for(20)
            assert card(url)["model_version"] == challenger.version
        assert served.promote(first) is None
    assert load.failed == []
    assert versions(load) == {first.version, second.version}
    assert mixed(load, expected, second) == []
    wait_until(lambda: ids(load) <= {row["request_id"] for row in log.read(DECISIONS)})
    assert {row["audit_share"] for row in log.read(DECISIONS)} == {0.5}


def test_everything_that_is_counted_can_be_read(url: str) -> None:
    """Promise: Ray exports what all replicas have counted, and what audits have found."""
    missing = {"ray_kcm_items_total", 'route="large"', 'version="reviews/2"', "ray_kcm_stage_seconds_bucket"}
    missing |= {'outcome="agree"', 'outcome="disagree"', "ray_kcm_audited_disagreement", "ray_kcm_audited_regret"}
    pages = [f"http://{each['NodeManagerAddress']}:{each['MetricsExportPort']}/metrics" for each in ray.nodes()]
    deadline = time.monotonic() + 240  # workers report every few seconds, each in its own time
    while missing and time.monotonic() < deadline:
        found = "".join(httpx.get(page, timeout=30).text for page in pages)
        missing = {name for name in missing if name not in found}
        time.sleep(0.5)
    assert not missing


@pytest.mark.parametrize("deployment", ["http", "large"])
@pytest.mark.slow
def test_a_replica_killed_under_load_costs_no_answer(
    url: str, served: Versions, sentences: list[str], expected: list[Answer], deployment: str
) -> None:
    """Promise: with two replicas and one retry 99% are answered, none of them wrongly; degraded answers say so."""
    with load_on(url, sentences, tries=2) as load:
        load.wait_for(20)
        os.kill(replicas(deployment)[0].pid, signal.SIGKILL)
        load.wait_for(80)
    assert len(load.failed) <= 0.01 * (len(load.answered) + len(load.failed)), load.failed
    assert mixed(load, expected, served.second) == []
    degraded = [answer for asked in load.answered for answer in asked.response["answers"] if answer["degraded"]]
    assert {answer["route"] for answer in degraded} <= {"small_degraded"}


def replicas(deployment: str) -> list[psutil.Process]:
    """The replicas' processes, of this session's cluster alone."""
    title = f"ray::ServeReplica:kcm:{deployment}"
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_alarm_in_the_log_stops_keeping_in_every_replica(
    url: str, config: RunConfig, served: Versions, sentences: list[str]
) -> None:
    """Promise: what one replica finds out is acted upon by all within seconds, while they answer."""
    log = DecisionLog(f"sqlite:///{config.storage_path}/feedback.db", 30.0, "reviews")
    with load_on(url, sentences) as load:
        load.wait_for(4)
        assert card(url)["standing"] == "holds"
        log.refute(served.first.version)

        def routes_from_now() -> set[str]:
            """Of the requests that come next: either replica gets some of them, and half of the items were kept."""
            moment = time.monotonic()
            load.wait_for(24)
            return {answer["route"] for asked in asked_since(moment, load) for answer in asked.response["answers"]}

        wait_until(lambda: "small" not in routes_from_now())
        assert card(url)["standing"] == "refuted"
        assert routes_from_now() <= {"large", "small_degraded"}
    assert load.failed == []
    log.close()
