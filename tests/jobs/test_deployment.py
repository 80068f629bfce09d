"""The files for clusters are what Ray takes, and name commands and configuration that exist."""

from __future__ import annotations

import copy
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.exceptions import ParamValidationError
from moto import mock_aws
from ray.serve.schema import ServeDeploySchema

from jobs.cli import COMMANDS
from kcm.config import parse_config
from pipelines.serve.deploy.app import AppConfig
from pipelines.serve.sources import ChampionSource
from tests.ray_private import haproxy_configuration, launch_on_ec2, validate_autoscaler

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "jobs" / "kuberay"
DOCKERFILE = (KUBERAY.parents[1] / "Dockerfile").read_text(encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def manifests(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A Ray resource and the NetworkPolicy that comes with it."""
    resource, policy = yaml.safe_load_all((KUBERAY / f"{name}.yaml").read_text(encoding="utf-8"))
    return resource, policy


def groups_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates of head and workers."""
    cluster = ray_cluster_of(manifest)
    return [group["template"] for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]]


def ray_cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"]
    cluster: dict[str, Any] = spec["rayClusterSpec" if manifest["kind"] == "RayJob" else "rayClusterConfig"]
    return cluster


def pinned_ray() -> str:
    pins = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    return str(pins[0])


@pytest.fixture
def aws() -> dict[str, Any]:
    return read(ROOT / "cluster.yaml")


def test_ray_accepts_the_cluster(aws: dict[str, Any]) -> None:
    validate_autoscaler(aws)


def test_ray_refuses_a_cluster_with_a_slip_in_it(aws: dict[str, Any]) -> None:
    aws["idle_timeout"] = aws.pop("idle_timeout_minutes")
    with pytest.raises(Exception, match="idle_timeout"):
        validate_autoscaler(aws)


@pytest.fixture
def ec2(aws: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of an EC2 in this process that has the instance profile of the cluster's head."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray keeps the key by which it enters its instances
    head = aws["available_node_types"][aws["head_node_type"]]
    with mock_aws():
        profile = head["node_config"]["IamInstanceProfile"]["Name"]
        boto3.client("iam").create_instance_profile(InstanceProfileName=profile)
        yield boto3.client("ec2", region_name=aws["provider"]["region"])


def test_ray_starts_every_kind_of_node_with_a_role_for_the_bucket(aws: dict[str, Any], ec2: Any) -> None:
    """Promise: head and workers enter the bucket by their role, and only workers can be taken away."""
    launch_on_ec2(copy.deepcopy(aws))
    found = [each for group in ec2.describe_instances()["Reservations"] for each in group["Instances"]]
    assert sorted(each["InstanceType"] for each in found) == ["g5.2xlarge", "m6i.4xlarge", "m6i.xlarge"]
    assert all(each["IamInstanceProfile"]["Arn"].endswith("/kcm") for each in found)
    assert [each["InstanceType"] for each in found if each.get("InstanceLifecycle") != "spot"] == ["m6i.xlarge"]


def test_ec2_refuses_a_kind_of_node_with_a_slip_in_it(aws: dict[str, Any], ec2: Any) -> None:
    profile = aws["available_node_types"]["cpu"]["node_config"].pop("IamInstanceProfile")
    aws["available_node_types"]["cpu"]["node_config"]["InstanceProfile"] = profile
    with pytest.raises(ParamValidationError, match="InstanceProfile"):
        launch_on_ec2(aws)


def test_no_work_lands_on_the_head_and_workers_start_from_none(aws: dict[str, Any]) -> None:
    types = aws["available_node_types"]
    assert types[aws["head_node_type"]]["resources"]["CPU"] == 0
    workers = [kind for name, kind in types.items() if name != aws["head_node_type"]]
    assert [worker["min_workers"] for worker in workers] == [0, 0]
    assert sorted(worker["resources"].get("GPU", 0) for worker in workers) == [0, 1]


def test_the_images_carry_the_ray_that_was_tested(aws: dict[str, Any]) -> None:
    version = pinned_ray()
    images = [aws["docker"]["image"], aws["available_node_types"]["gpu"]["docker"]["worker_image"]]
    assert all(image.startswith(f"rayproject/ray:{version}-py311") for image in images)
    assert f"ARG RAY_TAG={version}-py311\n" in DOCKERFILE
    assert all(ray_cluster_of(manifests(name)[0])["rayVersion"] == version for name in ("rayjob", "rayservice"))


@pytest.mark.parametrize("name", ["rayjob", "rayservice"])
def test_a_manifest_holds_a_cluster_without_work_on_its_head(name: str) -> None:
    manifest, _ = manifests(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["kind"].lower() == name
    cluster = ray_cluster_of(manifest)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for spec in (template["spec"] for template in groups_of(manifest)):
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


@pytest.mark.parametrize("name", ["rayjob", "rayservice"])
def test_nobody_else_reaches_a_cluster_or_enters_it(name: str) -> None:
    """Promise: a cluster asks for a token, and what of it asks for none can be reached by its own pods alone."""
    manifest, policy = manifests(name)
    assert ray_cluster_of(manifest)["authOptions"] == {"mode": "token"}
    assert (policy["apiVersion"], policy["kind"]) == ("networking.k8s.io/v1", "NetworkPolicy")
    spec = policy["spec"]
    selected = spec["podSelector"]["matchLabels"].items()
    assert selected
    assert all(selected <= template["metadata"]["labels"].items() for template in groups_of(manifest))
    assert spec["policyTypes"] == ["Ingress"]
    for rule in spec["ingress"]:
        peers = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
        assert all(peers)  # nobody is let in without a label
        ports = {port["port"] for port in rule.get("ports", [])}
        if not ports:
            assert rule["from"] == [{"podSelector": spec["podSelector"]}]  # every port is for its own pods
        if 8265 in ports:
            assert {"kuberay-operator", "kcm-run"} >= {value for peer in peers for value in peer.values()}


def test_the_service_asks_for_keys_and_keeps_its_log_in_a_database() -> None:
    """Promise: keys and passwords are Secrets, in no file of ours, and every node finds them."""
    manifest, _ = manifests("rayservice")
    for values in serve_files().values():
        config = parse_config(AppConfig, values["applications"][0]["args"]).serve
        assert config.auth.keys_file
        assert config.auth.requests_per_minute
        assert (config.feedback.url or "").startswith("postgresql+psycopg://")
        assert "kcm.example.org" in config.hosts
        assert "*" not in config.hosts
    keys_file = parse_config(AppConfig, serve_files()["rayservice"]["applications"][0]["args"]).serve.auth.keys_file
    for template in groups_of(manifest):
        (container,) = template["spec"]["containers"]
        folders = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
        secrets = {
            each["name"]: each["secret"]["secretName"] for each in template["spec"]["volumes"] if "secret" in each
        }
        assert secrets == {"keys": "kcm-keys"}
        assert keys_file is not None
        assert keys_file.parent == folders["keys"]
        environment = {each["name"]: each for each in container["env"]}
        assert "value" not in environment["PGPASSWORD"]
        assert environment["PGPASSWORD"]["valueFrom"]["secretKeyRef"]["name"] == "kcm-postgres"
    assert (
        '"$(echo /home/ray/wheel/kcm_cascade-*.whl)[postgres]"' in DOCKERFILE
    )  # by name it would be another project's


CALLBACK, MIDDLEWARE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "pipelines.serve.deploy.environment:middleware"


def test_every_cluster_that_serves_drops_the_headers_that_clients_must_not_send(aws: dict[str, Any]) -> None:
    for template in groups_of(manifests("rayservice")[0]):
        (container,) = template["spec"]["containers"]
        assert {each["name"]: each.get("value") for each in container["env"]}[CALLBACK] == MIDDLEWARE
    for commands in (aws["head_start_ray_commands"], aws["worker_start_ray_commands"]):
        (start,) = [command for command in commands if "ray start" in command]
        assert f"RAY_AUTH_MODE=token {CALLBACK}={MIDDLEWARE} RAY_SERVE_ENABLE_HA_PROXY=1 ray start" in start


def test_the_job_runs_a_command_that_exists() -> None:
    program, command, *_ = shlex.split(manifests("rayjob")[0]["spec"]["entrypoint"])
    assert program == "kcm"
    assert command in COMMANDS


def serve_files() -> dict[str, dict[str, Any]]:
    return {
        "rayservice": yaml.safe_load(manifests("rayservice")[0]["spec"]["serveConfigV2"]),
        "serve": read(ROOT / "jobs" / "configs" / "serve.yaml"),
    }


@pytest.mark.parametrize("name", ["rayservice", "serve"])
def test_the_service_deploys_an_application_that_exists(name: str) -> None:
    values = serve_files()[name]
    schema = ServeDeploySchema.model_validate(values)
    assert values.keys() <= ServeDeploySchema.model_fields.keys()  # the schema ignores what it does not know
    (application,) = schema.applications
    assert values["applications"][0].keys() <= type(application).model_fields.keys()
    module, _, name = application.import_path.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    config = parse_config(AppConfig, application.args)
    assert config.serve.large.num_replicas == 2
    assert isinstance(config.source, ChampionSource)
    assert application.deployments == []  # what is served is the pointer's to say


def test_haproxy_opens_what_the_page_for_operators_says(tmp_path: Path) -> None:
    written = haproxy_configuration(tmp_path)
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    facts = {
        "bind *:8404": "`0.0.0.0:8404`",
        "bind :9101": "`0.0.0.0:9101`",
        "mode 666": "a socket of mode 666",
        "timeout client 3600s": "cut after an hour",
    }
    assert all(line in written and words in page for line, words in facts.items())
