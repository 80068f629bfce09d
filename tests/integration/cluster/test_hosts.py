"""The main job and its service on several hosts, none of which sees another one's files: namespaces of this machine."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from benchmarks.cluster import DEPLOYMENT, Report, measure, prepared, submit
from benchmarks.hosts import HOME
from benchmarks.hosts_cluster import HostCluster, why_no_cluster

ASKED = "KCM_TEST_HOSTS" in os.environ
REASON = why_no_cluster() if ASKED else "keeps two cores busy: set KCM_TEST_HOSTS=1"
FAULTS = {"database", "worker"}
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[HostCluster]:
    with ExitStack() as hosts:
        yield prepared(hosts)


def test_unshared_folder_is_refused_before_the_first_stage(cluster: HostCluster) -> None:
    """Promise: a folder that nodes do not share is refused before the first stage."""
    local = ["--set", f"storage_path={HOME}/storage", "--set", "tracking.uri=null"]
    started = submit(cluster, "local.log", *local)
    assert started.wait(timeout=600) != 0
    printed = cluster.laptop.file("local.log").read_text()
    (error,) = {line for line in printed.splitlines() if line.startswith("error:")}  # Ray repeats the last lines
    assert all(f"{name}: it does not see the file that the driver wrote" in error for name in cluster.workers), error
    assert "Traceback" not in printed
    assert "tasks " not in printed


def test_run_equals_one_machine_and_service_survives_faults(
    cluster: HostCluster,
) -> None:
    """Promise: same accuracies and policy; 99.5% are answered with one retry, none of them wrong; no label is lost."""
    measure(cluster, report := Report(), FAULTS)
    assert report.failed == {}
    assert report.equal
    assert cluster.storage in cluster.laptop.file(DEPLOYMENT).read_text()
    assert {name: (found["wrong"], found["lost"]) for name, found in report.faults.items()} == dict.fromkeys(
        FAULTS, (0, 0)
    )
    assert all(found["answered"] >= 0.995 for found in report.faults.values()), report.faults
