"""Numbers of train workers that cannot be are refused in one line before any work starts."""

import os
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import ray
from ray.exceptions import AuthenticationError

from kcm.config import parse_config
from kcm.errors import ConfigError, KcmError
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import MODE, TOKEN, TOKEN_PATH, connected, join, local_token
from tests.ray_private import asks_for_a_token, keeps_loopback


@pytest.mark.parametrize(("given", "taken", "fewest"), [(3, 3, 3), ([1, 4], (1, 4), 1), ([2, 2], (2, 2), 2)])
def test_workers_are_a_count_or_a_pair(given, taken, fewest) -> None:
    config = parse_config(ClusterConfig, {"num_workers": given})
    assert (config.num_workers, config.fewest_workers) == (taken, fewest)


@pytest.mark.parametrize("given", [0, [4, 1], [0, 2], [1, 2, 3], [1.5, 2], "two", True, None])
def test_invalid_worker_numbers_are_refused_with_the_rule(given) -> None:
    """Promise: other numbers of workers are refused with what is allowed."""
    with pytest.raises(ConfigError, match=r"num_workers = .* a count from 1, or a pair such as \[1, 4\]"):
        parse_config(ClusterConfig, {"num_workers": given})


@pytest.mark.parametrize("workers", [9, (9, 12)])
def test_workers_without_room_on_a_local_cluster_are_refused(workers, started) -> None:
    """Promise: nobody waits for CPUs that never come."""
    reason = r"no room for 9 train workers with 0\.5 CPUs .* local cluster with 4 CPUs \(cluster.num_workers"
    with pytest.raises(ConfigError, match=reason), connected(ClusterConfig(num_workers=workers)):
        pass
    assert not started
    for fewer in (8, (1, 12)):
        with connected(ClusterConfig(num_workers=fewer)):
            assert started["address"] == "local"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What Ray is asked for, and whether it is to leave 127.0.0.1 as it stands; it starts nothing."""
    asked: dict[str, object] = {}

    def init(**given: object) -> None:
        asked.update(given, loopback_is_meant=keeps_loopback())

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    return asked


@pytest.fixture
def listening() -> Iterator[str]:
    """An address at which a gRPC server listens."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_foreign_local_cluster_is_not_joined(started: dict[str, object], listening: str) -> None:
    """Promise: a cluster of somebody else on this machine is not joined."""
    with connected(ClusterConfig()):
        assert started["address"] == "local"
    with connected(ClusterConfig(address=f"ray://{listening}")):
        assert started["address"] == f"ray://{listening}"


def test_a_local_cluster_keeps_to_loopback(started: dict[str, object]) -> None:
    with connected(ClusterConfig()):
        assert (started["_node_ip_address"], started["dashboard_host"]) == ("127.0.0.1", "127.0.0.1")
        assert started["loopback_is_meant"]
    assert not keeps_loopback()


def test_a_cluster_that_refuses_the_token_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch, listening: str) -> None:
    def refuse(**_: object) -> None:
        raise AuthenticationError("InvalidAuthToken: the token is missing or incorrect. More")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(KcmError, match=rf"refuses us: .*InvalidAuthToken.* \({listening}\). Set RAY_AUTH_MODE=token"):
        join(listening)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (MODE, TOKEN, TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)


def test_token_has_its_own_folder_and_is_deleted() -> None:
    """Promise: a token is in a folder of its own and goes with the block."""
    seen = []
    for _ in range(2):
        with local_token():
            file = Path(os.environ[TOKEN_PATH])
            assert [stat.S_IMODE(path.stat().st_mode) for path in (file.parent, file)] == [0o700, 0o600]
            assert len(file.read_text()) == 64
            seen.append(file.read_text())
            assert (os.environ[MODE], asks_for_a_token()) == ("token", True)
        assert not file.parent.exists()
        assert not {MODE, TOKEN_PATH} & os.environ.keys()
        assert not asks_for_a_token()
    assert seen[0] != seen[1]


@pytest.mark.parametrize("name", [TOKEN, TOKEN_PATH])
def test_a_person_s_own_token_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "own")
    with local_token():
        assert (os.environ[MODE], os.environ[name]) == ("token", "own")


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_address_without_listener_is_refused_at_once(started: dict[str, object], prefix: str) -> None:
    """Promise: a wrong address is one line, and Ray does not try it for minutes."""
    with socket.socket() as held:  # bound and not listening: nobody answers, and nobody else takes the port
        held.bind(("127.0.0.1", 0))
        address = f"{prefix}127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(KcmError, match=r"no Ray cluster answers: .*refused") as error:
            join(address)
    assert error.value.where == address
    assert not started


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"hi", b""])
def test_port_of_another_service_is_refused(
    started: dict[str, object], greeting: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: one line after the timeout at most, also from a server that says nothing; Ray would try for minutes."""
    monkeypatch.setattr("pipelines.cluster.connection.LISTENER_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(lambda: server.accept()[0])
        accepted.add_done_callback(lambda done: done.result().sendall(greeting))
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(KcmError, match="no Ray cluster answers") as error:
            join(address)
    assert error.value.where == address
    assert not started


def test_address_with_a_listener_is_left_to_ray(started: dict[str, object], listening: str) -> None:
    """Promise: Ray decides whether it is a cluster that listens, and finds `auto` by itself."""
    join(listening)
    assert started["address"] == listening
    join("auto")
    assert started["address"] == "auto"


def test_silent_refusal_names_the_token(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a cluster that listens and refuses without a word is no missing cluster: the line says how to enter."""

    def refuse(**_: object) -> None:
        raise ConnectionError(f"Failed to connect to Ray cluster at {listening}")

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(KcmError, match="If it requires a token: Set RAY_AUTH_MODE=token"):
        join(listening)
