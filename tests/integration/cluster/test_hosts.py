"""The main job and its service on several hosts, none of which sees another one's files: namespaces of this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from benchmarks import cluster as benchmark
from benchmarks.cluster import CONFIG, FAULTS, answered, content, deploy, on_one_machine, prepare, submit
from benchmarks.hosts import HOME, why_no_hosts
from benchmarks.hosts_cluster import HostCluster, cluster_on_hosts

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif("KCM_TEST_HOSTS" not in os.environ, reason="takes a quarter of an hour: set KCM_TEST_HOSTS=1"),
    pytest.mark.skipif(why_no_hosts() is not None, reason=str(why_no_hosts())),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[HostCluster]:
    with cluster_on_hosts(3) as cluster:
        prepare(cluster)
        yield cluster


@pytest.fixture(scope="module")
def log_of_the_run(cluster: HostCluster) -> str:
    return submit(cluster)


def test_a_folder_that_nodes_do_not_share_is_refused_before_the_first_stage(cluster: HostCluster) -> None:
    local = ["--set", f"storage_path={HOME}/storage", "--set", "tracking.uri=null"]
    ended = cluster.kcm("submit", CONFIG, "--address", cluster.dashboard, *local)
    assert ended.returncode == 2
    (fault,) = (line for line in ended.stdout.splitlines() if line.startswith("FAULT"))
    assert "storage" in fault
    assert all(f"{name}: it does not see there what the driver wrote" in fault for name in cluster.workers)
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "tasks " not in ended.stdout


def test_a_client_without_the_token_is_told_in_one_line(cluster: HostCluster) -> None:
    ended = cluster.kcm("submit", CONFIG, "--address", cluster.dashboard, "--auth", "disabled")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "the Ray cluster refuses us: Authentication required" in ended.stderr


def test_the_run_is_that_of_one_machine_and_its_service_outlives_a_cut_link_and_a_dead_worker(
    cluster: HostCluster, log_of_the_run: str
) -> None:
    """Promise: same accuracies and policy; 99.5% are answered with one retry at another door, none of them wrong."""
    assert log_of_the_run.splitlines()[-1] == f"{cluster.storage}/runs/hosts/result.json"
    there = content(json.loads(cluster.download("storage/runs/hosts/result.json")))
    urls = deploy(cluster)
    assert cluster.storage in cluster.laptop.read(benchmark.DEPLOYMENT)
    figures = {name: answered(cluster, urls, fault) for name, fault in FAULTS.items()}
    assert {name: found["wrong"] for name, found in figures.items()} == dict.fromkeys(FAULTS, 0)
    assert all(found["answered"] >= 0.995 for found in figures.values()), figures
    assert on_one_machine(cluster) == there
