"""The files for clusters are what Ray takes, and name commands and configuration that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.serve.sources import ChampionSource
from tests.ray_private import started_nodes, validate_autoscaler
from tests.serve_file import deployed_application

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def pinned_ray() -> str:
    pins = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    return str(pins[0])


@pytest.fixture
def aws() -> dict[str, Any]:
    return read(ROOT / "cluster.yaml")


@pytest.fixture
def gcp() -> dict[str, Any]:
    return read(ROOT / "deploy" / "gcp.yaml")


@pytest.fixture(params=["aws", "gcp"])
def cluster(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.getfixturevalue(request.param)


def test_ray_accepts_the_cluster(cluster: dict[str, Any]) -> None:
    validate_autoscaler(cluster)


def test_google_cluster_equals_aws_except_machines(aws: dict[str, Any], gcp: dict[str, Any]) -> None:
    """Promise: the cluster of google is that of aws but for its machines."""
    clouds_own = {"provider", "available_node_types", "head_setup_commands"}
    assert {key for key in aws.keys() | gcp.keys() if aws.get(key) != gcp.get(key)} == clouds_own
    for name, kind in gcp["available_node_types"].items():
        machine = kind.pop("node_config")
        assert kind == {key: value for key, value in aws["available_node_types"][name].items() if key != "node_config"}
        (account,) = machine["serviceAccounts"]  # by whose role it enters the bucket
        assert account["email"].split("@")[1].startswith(gcp["provider"]["project_id"])
        spot = machine.get("scheduling", {}).get("provisioningModel") == "SPOT"
        assert spot == name.endswith("-spot")


def test_no_work_lands_on_the_head_and_workers_start_from_none(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert types[cluster["head_node_type"]]["resources"]["CPU"] == 0
    workers = [kind for name, kind in types.items() if name != cluster["head_node_type"]]
    assert [worker["min_workers"] for worker in workers] == [0, 0, 0, 0]
    assert sorted(worker["resources"].get("GPU", 0) for worker in workers) == [0, 0, 1, 1]


def test_compute_prefers_spot_nodes_and_serving_avoids_them(cluster: dict[str, Any]) -> None:
    """Promise: what computes starts spot nodes first and what serves nodes that stay."""
    _, config = deployed_application(read(ROOT / "jobs" / "configs" / "serve.yaml"))
    for kind, resources in {"cpu": {"CPU": 0.5}, "gpu": {"CPU": 0.5, "GPU": 1.0}}.items():
        assert started_nodes(cluster, resources) == {f"{kind}-spot": 1}
        assert started_nodes(cluster, resources, lacking=f"{kind}-spot") == {kind: 1}
        assert started_nodes(cluster, resources, config.serve.label_selector) == {kind: 1}


def test_the_images_carry_the_ray_that_was_tested(cluster: dict[str, Any]) -> None:
    version = pinned_ray()
    images = [cluster["docker"]["image"], cluster["available_node_types"]["gpu"]["docker"]["worker_image"]]
    assert all(image.startswith(f"rayproject/ray:{version}-py311") for image in images)
    assert f"ARG RAY_TAG={version}-py311\n" in DOCKERFILE


CALLBACK, MIDDLEWARE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "pipelines.serve.deploy.environment:middleware"


def test_serving_clusters_drop_forbidden_client_headers(aws: dict[str, Any]) -> None:
    """Promise: every cluster that serves drops the headers that clients must not send."""
    for commands in (aws["head_start_ray_commands"], aws["worker_start_ray_commands"]):
        (start,) = [command for command in commands if "ray start" in command]
        assert f"RAY_AUTH_MODE=token {CALLBACK}={MIDDLEWARE} RAY_SERVE_ENABLE_HA_PROXY=1 " in start


def test_the_service_deploys_an_application_that_exists() -> None:
    """Promise: it asks for keys, keeps its log in a database, and answers by the names that it is told alone."""
    values = read(ROOT / "jobs" / "configs" / "serve.yaml")
    application, config = deployed_application(values)
    assert config.serve.large.num_replicas == 2
    assert isinstance(config.source, ChampionSource)
    (http_replica,) = application.deployments  # what is served is the pointer's to say
    assert http_replica.model_dump(exclude_unset=True) == {"name": "http", "max_replicas_per_node": 1}
    assert config.serve.auth.keys_file
    assert config.serve.auth.requests_per_minute
    assert (config.serve.feedback.url or "").startswith("postgresql+psycopg://")
    assert "kcm.example.org" in config.serve.hosts
    assert "*" not in config.serve.hosts
    extras = '"$(echo /home/ray/wheel/kcm_cascade-*.whl)[hub,postgres,ray]"'
    assert extras in DOCKERFILE  # by name it would be another project's
