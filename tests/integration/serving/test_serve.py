"""The served cascade over real HTTP, on a real cluster."""

import asyncio
import ipaddress
import os
import pickle
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from ray import serve
from ray.serve import Application
from ray.serve.generated.serve_pb2 import ASGIRequest
from ray.serve.generated.serve_pb2_grpc import ASGIServiceStub

from kcm.api.cascade import load_cascade
from kcm.bundle.answers import Answer, Input
from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.config import parse_config
from kcm.inputs.content import Content
from kcm.large import Item, LargeAnswer
from kcm.large.adapters.openai import OpenAiConfig, openai_identity
from pipelines.serve.breaker import BreakerConfig
from pipelines.serve.config import LargeReplicaConfig, ServeConfig
from pipelines.serve.deploy.app import APP_NAME, IDLE_S, LOGGING, build_app, build_http_replica, large_options, start
from pipelines.serve.release import Release
from pipelines.serve.sources import FixedSource
from tests.fake_upstream import FakeUpstream, label
from tests.ports import free_port
from tests.waiting import PATIENCE_S, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture(scope="module")
def config() -> ServeConfig:
    port = free_port()
    large = LargeReplicaConfig(
        cpus=0.5,
        max_batch_size=1,
        max_ongoing_requests=1,
        max_queued_requests=1,
        timeout_s=12.0,
        attempt_timeout_s=8.0,
        breaker=BreakerConfig(failures=1000),  # unit tests open it; here it would make one test depend on another
    )
    return ServeConfig(
        port=port,
        cpus=0.5,
        max_ongoing_requests=32,
        max_queued_requests=12,
        timeout_s=60.0,
        judge_timeout_s=40.0,  # a busy machine is no fault of the service
        large=large,
    )


@pytest.fixture(scope="module", autouse=True)
def stopped_afterwards() -> Iterator[None]:
    yield
    serve.shutdown()


def deployed(app: Application, config: ServeConfig, version: str) -> str:
    """The URL of a service, once this version answers there and no longer the one before it."""
    url = start(app, config)
    wait_until(lambda: httpx.get(f"{url}/v1/model", timeout=60).json()["model_version"] == version)
    return url


def post(url: str, texts: Sequence[str], **fields: Any) -> httpx.Response:
    body = {"inputs": [{"text": text, **fields} for text in texts]}
    return httpx.post(f"{url}/v1/predict", json=body, timeout=120)


def is_well_again(url: str) -> bool:
    """Whether the large model answers; what it was asked before may still have to be taken back."""
    return post(url, ["well again"]).json()["answers"][0]["route"] == "large"


@dataclass(frozen=True)
class Listener:
    """Where a process of this session's cluster listens."""

    title: str
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        address = ipaddress.ip_address(self.host)
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def listeners() -> list[Listener]:
    """All of this session's cluster: its node, its workers, its proxies."""
    own, found = psutil.Process(), list[Listener]()
    for process in [own, *own.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it has ended since it was listed
            title = " ".join(process.cmdline()).strip()
            places = [place for place in process.net_connections() if place.status == psutil.CONN_LISTEN]
            found += [Listener(title, place.laddr.ip, place.laddr.port) for place in places]
    return found


# -- with the real large model -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(quick_bundle: Callable[..., Path]) -> Path:
    return quick_bundle()


@pytest.fixture(scope="module")
def url(bundle: Path, config: ServeConfig, assets_dir: Path) -> str:
    roomy = config.model_copy(update={"large": LargeReplicaConfig(cpus=0.5, timeout_s=50.0, attempt_timeout_s=50.0)})
    return deployed(build_app(FixedSource(Release(version="7", bundle=bundle)), roomy, assets_dir), roomy, "7")


def test_http_gives_the_answers_of_the_cascade_in_process(
    url: str, bundle: Path, assets_dir: Path, sentences: list[str]
) -> None:
    expected = load_cascade(bundle, assets_dir).answer([Input(Content(text)) for text in sentences])
    served = [a for i in range(0, 200, 50) for a in post(url, sentences[i : i + 50]).json()["answers"]]
    close = 0
    for mine, theirs in zip(expected, served, strict=True):
        assert isinstance(mine, Answer)
        assert theirs["gate_score"] == pytest.approx(mine.gate_score, abs=1e-4)
        assert theirs["threshold"] == mine.threshold
        assert theirs["judge_confidence"] == pytest.approx(mine.judge_confidence, abs=1e-4)
        assert mine.threshold is not None
        if abs(mine.gate_score - mine.threshold) < 1e-4:
            close += 1
            continue
        assert (theirs["route"], theirs["label"]) == (mine.route, mine.label)
        assert theirs["probabilities"] == pytest.approx(mine.probabilities, abs=1e-4)
    assert close <= 4
    assert Counter(answer["route"] for answer in served).keys() == {"small", "large"}


# What Ray opens to other machines: the port by which each replica is called by the others. docs/serving.md names it.
BEYOND_LOOPBACK = {"ray::ServeReplica:kcm:http", "ray::ServeReplica:kcm:large"}


def test_nobody_on_another_machine_reaches_more_than_is_known(url: str) -> None:
    """Promise: nothing of Ray or the HTTP replicas listens where others reach it, but for what refuses them."""
    found = listeners()
    assert Counter(each.title for each in found if not each.is_loopback) == dict.fromkeys(BEYOND_LOOPBACK, 1)
    for title in ("gcs_server", "raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "kcm:http"):
        assert [each for each in found if title in each.title], f"nothing was looked at of {title}"
    proxies = {each.port for each in found if "ProxyActor" in each.title}
    assert httpx.URL(url).port in proxies


@dataclass(frozen=True)
class Trap:
    """Whoever unpickles it makes a folder."""

    folder: str

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.folder,)


def test_outside_access_needs_the_token_first(url: str, tmp_path: Path) -> None:
    """Promise: a replica unpickles nothing of a stranger's."""
    mark = tmp_path / "ran"
    request = ASGIRequest(pickled_request_metadata=pickle.dumps(Trap(str(mark))))
    open_to_others = [each for each in listeners() if not each.is_loopback]
    assert open_to_others
    for each in open_to_others:
        with grpc.insecure_channel(f"127.0.0.1:{each.port}") as channel, pytest.raises(grpc.RpcError) as refused:
            ASGIServiceStub(channel).HandleRequest(request, timeout=120)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not mark.exists()


AGENT_PORT = 52365  # Ray's own, the same for every cluster of a machine: the first one gets it
JOB_PATHS = ("/api/job_agent/jobs/", "/api/jobs/", "/get_or_create_runtime_env")


def test_nobody_without_the_token_runs_a_job(url: str, tmp_path: Path) -> None:
    """Promise: another user of this machine, who does reach loopback, is refused wherever a job can be posted."""
    mark = tmp_path / "ran"
    body = {"entrypoint": f"touch {mark}", "submission_id": "stranger"}
    statuses: dict[str, set[int]] = {}
    for each in listeners():
        patience_s = 60 if each.port == AGENT_PORT else 2  # others may speak another language, and say nothing
        for path in JOB_PATHS:
            with suppress(httpx.TransportError):
                answer = httpx.post(f"http://127.0.0.1:{each.port}{path}", json=body, timeout=patience_s)
                statuses.setdefault(each.title, set()).add(answer.status_code)
    agent = {title: found for title, found in statuses.items() if "ray::DashboardAgent" in title}
    held_elsewhere = AGENT_PORT not in {each.port for each in listeners()}  # by the cluster of another test session
    assert held_elsewhere or 401 in set().union(*agent.values())  # the one that would run it
    assert not {status for found in statuses.values() for status in found if status < 400}, statuses
    assert not mark.exists()


@pytest.mark.parametrize("piece", [b"a" * 2**20, b"X-A: b\r\n" * 2**14], ids=["endless header", "million headers"])
def test_endless_heads_stop_nobody(url: str, piece: bytes) -> None:
    """Promise: a client without a key whose headers never end is cut off; others are answered by the same proxy."""

    def proxies() -> set[int]:
        processes = psutil.Process().children(recursive=True)
        return {process.pid for process in processes if "ProxyActor" in " ".join(process.cmdline())}

    before, address = proxies(), httpx.URL(url)
    with ThreadPoolExecutor(1) as others, socket.create_connection((address.host, address.port)) as attacker:
        answers = [others.submit(post, url, ["a film"]) for _ in range(5)]
        attacker.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nX-A: b")
        with pytest.raises(ConnectionError):
            attacker.sendall(piece * 64)
        assert [answer.result().status_code for answer in answers] == [200] * 5
    assert proxies() == before


# -- with a large model that does what the text says -------------------------------------------------------------------


def scripted_large(config: ServeConfig) -> Application:
    """Defined within a function, so that replicas receive the class itself and need not import the tests."""

    @serve.deployment(name="large")
    class ScriptedLarge:
        async def answer(self, items: list[Item], release: Release) -> list[LargeAnswer]:
            text = items[0].content.text
            if text == "stall":
                await asyncio.sleep(30)
            if text.startswith("/"):
                with Path(text).open("a") as diary:
                    diary.write("asked ")
                    diary.flush()
                    try:
                        await asyncio.sleep(30)
                    except asyncio.CancelledError:
                        diary.write("cancelled ")
                        raise
            return [LargeAnswer(1) for _ in items]

    return ScriptedLarge.options(**large_options(config)).bind()


@pytest.fixture(scope="module")
def lenient(quick_bundle: Callable[..., Path], config: ServeConfig, assets_dir: Path) -> str:
    folder = quick_bundle(policy=Policy(decision=ESCALATE_ALL, on_large_failure="answer_small"))
    release = Release(version="lenient", bundle=folder)
    app = build_http_replica(FixedSource(release), config, assets_dir, scripted_large(config))
    return deployed(app, config, release.version)


@pytest.fixture(scope="module")
def strict(quick_bundle: Callable[..., Path], config: ServeConfig, assets_dir: Path) -> str:
    folder = quick_bundle(policy=Policy(decision=ESCALATE_ALL, on_large_failure="error"))
    wide = config.large.model_copy(update={"max_ongoing_requests": 100, "max_queued_requests": 100})
    large = scripted_large(config.model_copy(update={"large": wide}))
    release = Release(version="strict", bundle=folder)
    return deployed(build_http_replica(FixedSource(release), config, assets_dir, large), config, release.version)


def test_client_that_leaves_cancels_its_large_questions(lenient: str, tmp_path: Path) -> None:
    """Promise: no large model works on for a client that has gone, whatever it asked of Ray; nor is it asked again."""
    diary = tmp_path / "diary"
    headers = {"x-request-disconnect-disabled": "?1", "x-request-timeout-seconds": "0"}

    async def leave_once_it_is_asked() -> None:
        async with httpx.AsyncClient(timeout=120) as client:
            body = {"inputs": [{"text": str(diary)}]}
            asking = asyncio.create_task(client.post(f"{lenient}/v1/predict", json=body, headers=headers))
            await asyncio.to_thread(wait_until, diary.exists)
            asking.cancel()
            await asyncio.wait([asking])

    asyncio.run(leave_once_it_is_asked())
    wait_until(lambda: "cancelled" in diary.read_text())
    wait_until(lambda: is_well_again(lenient))
    assert diary.read_text().split() == ["asked", "cancelled"]


@pytest.mark.slow
def test_more_requests_than_fit_are_refused_with_retry_after(strict: str) -> None:
    """All the requests that the replica takes wait for the large model; of the others, few may wait for the replica."""
    body = {"inputs": [{"text": "stall"}]}
    limits = httpx.Limits(max_connections=None)
    with httpx.Client(limits=limits, timeout=60) as client, ThreadPoolExecutor(100) as threads:
        responses = list(threads.map(lambda _: client.post(f"{strict}/v1/predict", json=body), range(100)))
    assert {response.status_code for response in responses} == {429, 504}
    assert {response.headers["retry-after"] for response in responses} == {"1"}
    assert post(strict, ["well again"]).status_code == 200


def running(deployment: str) -> int:
    """The number of replicas that accept requests."""
    return serve.status().applications[APP_NAME].deployments[deployment].replica_states.get("RUNNING", 0)


@pytest.mark.slow
def test_http_replicas_follow_the_load_and_lose_no_request(
    quick_bundle: Callable[..., Path],
    config: ServeConfig,
    upstream: FakeUpstream,
    assets_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Promise: HTTP replicas start under load and stop after it, 1 to 3 to 1, and every request is answered."""
    monkeypatch.setattr("pipelines.serve.deploy.app.IDLE_S", 10.0)
    upstream.otherwise = lambda _: replace(label("positive"), delay_s=1.5)
    asked = OpenAiConfig(model="big", base_url=upstream.base_url, api_key_env=None, num_concurrent=64)
    identity, policy = openai_identity(asked, ("negative", "positive")), Policy(decision=ESCALATE_ALL)
    folder = quick_bundle(large=asked, large_identity=identity, large_head=None, policy=policy)
    replicas = {"cpus": 0.1, "min_replicas": 1, "num_replicas": 3, "max_ongoing_requests": 8, "max_batch_size": 8}
    large = LargeReplicaConfig(cpus=0.1, upstreams=(asked.upstream,))
    scaled = config.model_copy(update=replicas | {"max_queued_requests": 100, "large": large})
    release = Release(version="followed", bundle=folder)
    url = deployed(build_app(FixedSource(release), scaled, assets_dir), scaled, release.version)

    responses: list[Future[httpx.Response]] = []
    most, deadline = 0, time.monotonic() + 180
    with ThreadPoolExecutor(100) as clients:
        for pause_s, number in ((1 / 10, 3), (1.0, 1)):  # 15 open requests, then 2
            while running("http") != number and time.monotonic() < deadline:
                responses.append(clients.submit(post, url, [f"text {len(responses)}"]))
                time.sleep(pause_s)
            most = max(most, running("http"))
    assert most == 3
    assert running("http") == 1
    assert {response.result().status_code for response in responses} == {200}
    assert {response.result().json()["answers"][0]["route"] for response in responses} == {"large"}


@pytest.mark.slow
def test_large_replicas_scale_up_for_open_requests_and_down(
    quick_bundle: Callable[..., Path], config: ServeConfig, upstream: FakeUpstream, assets_dir: Path
) -> None:
    """Promise: replicas are started while requests wait, and stopped after a pause."""
    upstream.otherwise = lambda _: replace(label("positive"), delay_s=1.5)
    asked = OpenAiConfig(model="big", base_url=upstream.base_url, api_key_env=None, num_concurrent=1)
    identity, policy = openai_identity(asked, ("negative", "positive")), Policy(decision=ESCALATE_ALL)
    folder = quick_bundle(large=asked, large_identity=identity, large_head=None, policy=policy)
    replicas = {"cpus": 0.1, "min_replicas": 1, "num_replicas": 3, "attempt_timeout_s": 6.0}
    replicas |= {"max_ongoing_requests": 2, "max_batch_size": 2}
    large = parse_config(
        LargeReplicaConfig, replicas | {"upstreams": [asked.upstream.model_dump()], "breaker": {"failures": 1000}}
    )
    scaled = config.model_copy(update={"large": large})
    release = Release(version="scaled", bundle=folder)
    url = deployed(build_app(FixedSource(release), scaled, assets_dir), scaled, release.version)

    most, texts = 0, count()
    with ThreadPoolExecutor(100) as clients:
        deadline = time.monotonic() + 240
        while most < 3 and time.monotonic() < deadline:
            clients.submit(post, url, [f"text {next(texts)}"])
            time.sleep(1 / 12)
            most = max(most, running("large"))
    assert most == 3
    wait_until(lambda: running("large") == 1, timeout_s=IDLE_S + PATIENCE_S)


@pytest.mark.slow
def test_first_escalations_wait_for_the_first_large_replica(
    quick_bundle: Callable[..., Path], config: ServeConfig, assets_dir: Path
) -> None:
    """Promise: where replicas start from none, what is escalated in the meantime is answered by them, not refused."""
    folder = quick_bundle(policy=Policy(decision=ESCALATE_ALL, on_large_failure="error"))
    patient = {"min_replicas": 0, "timeout_s": 100.0, "attempt_timeout_s": 100.0, "max_queued_requests": 8}
    waiting = config.model_copy(update={"timeout_s": 110.0, "large": config.large.model_copy(update=patient)})
    http_replica = build_http_replica(
        FixedSource(Release(version="none", bundle=folder)), waiting, assets_dir, scripted_large(waiting)
    )
    serve.run(http_replica, name=APP_NAME, route_prefix="/", logging_config=LOGGING)  # returns before it is ready
    with ThreadPoolExecutor(4) as clients:
        responses = list(clients.map(lambda _: post(f"http://127.0.0.1:{config.port}", ["x"]), range(4)))
    assert [response.status_code for response in responses] == [200] * 4
    assert {response.json()["answers"][0]["route"] for response in responses} == {"large"}
