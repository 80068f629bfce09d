"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.ports import free_port

if TYPE_CHECKING:  # pytest loads it as a plugin
    from tests.seaweed import ObjectServer

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent

OPERATORS_KEY = "sk-operator-0123456789abcdef"  # for an upstream, in the environment of the session's cluster

# Machines that run other work beside the tests are no reason for one to fail.
settings.register_profile("kcm", deadline=None)
settings.load_profile("kcm")

pytest_plugins = [
    "tests.fake_hub",
    "tests.fake_upstream",
    "tests.full_disk",
    "tests.object_store",
    "tests.outside",
    "tests.postgres",
    "tests.seaweed",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--promises", action="store_true", help="Print one line per test, what it promises; run none.")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Print the promises instead of running the tests: the docstring, or else the name of the test."""
    if not session.config.getoption("--promises"):
        return
    tests = {item.nodeid.partition("[")[0]: item for item in session.items if isinstance(item, pytest.Function)}
    for name, item in tests.items():
        words = (item.function.__doc__ or item.originalname.removeprefix("test_").replace("_", " ")).split()
        print(f"{name.partition('::')[0]}: {' '.join(words).removeprefix('Promise: ')}")
    session.items.clear()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--promises"):
        session.exitstatus = pytest.ExitCode.OK  # not "no tests"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What runs an `async def` test."""
    return "asyncio"


@pytest.fixture(scope="session")
def assets_dir() -> Path:
    """Where the real models and data lie; integration tests fetch what is missing."""
    return Path(os.environ.get("KCM_ASSETS", ROOT / "assets"))


@pytest.fixture(scope="session")
def cluster_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path of every process of the session's cluster, for packages that a test writes."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="session")
def trace_collector() -> str:
    """Where the cluster sends spans; a test that reads them listens there."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="session")
def ray_cluster(cluster_path: Path, object_environment: ObjectServer, trace_collector: str) -> Iterator[None]:
    """The one local Ray cluster of the session, whose processes know the object server should a test start it."""
    from pipelines.cluster.config import ClusterConfig
    from pipelines.cluster.connection import connected
    from pipelines.serve.deploy.environment import prepare_environment, span_processors

    prepare_environment()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(cluster_path), prepend=os.pathsep)
        patch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process of every training; nobody takes the node
        patch.setenv("RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH", f"{span_processors.__module__}:span_processors")
        patch.setenv("RAY_SERVE_TRACING_SAMPLING_RATIO", "0")  # but for a client that asks for a trace
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", trace_collector)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        patch.setenv("UPSTREAM_KEY", OPERATORS_KEY)
        with connected(ClusterConfig()):
            yield
