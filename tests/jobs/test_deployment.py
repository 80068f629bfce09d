"""The files for clusters are what Ray takes, and name commands and configuration that exist."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema
from typer.main import get_command

from jobs.cli import app
from kcm.config import parse_config
from pipelines.serve.deploy.app import AppConfig
from pipelines.serve.deploy.release import Release

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "jobs" / "kuberay"


def read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


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
    validate_config(prepare_config(aws))


def test_ray_refuses_a_cluster_with_a_slip_in_it(aws: dict[str, Any]) -> None:
    aws["idle_timeout"] = aws.pop("idle_timeout_minutes")
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config(aws))


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
    assert f"FROM rayproject/ray:{version}-py311\n" in (KUBERAY / "Dockerfile").read_text(encoding="utf-8")
    assert all(ray_cluster_of(read(path))["rayVersion"] == version for path in KUBERAY.glob("*.yaml"))


@pytest.mark.parametrize("name", ["rayjob", "rayservice"])
def test_a_manifest_holds_a_cluster_without_work_on_its_head(name: str) -> None:
    manifest = read(KUBERAY / f"{name}.yaml")
    assert manifest["apiVersion"] == "ray.io/v1"
    assert manifest["kind"].lower() == name
    cluster = ray_cluster_of(manifest)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for spec in (group["template"]["spec"] for group in groups):
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_the_job_runs_a_command_that_exists() -> None:
    program, command, *_ = shlex.split(read(KUBERAY / "rayjob.yaml")["spec"]["entrypoint"])
    assert program == "kcm"
    assert command in get_command(app).commands  # type: ignore[attr-defined]


def serve_files() -> dict[str, dict[str, Any]]:
    return {
        "rayservice": yaml.safe_load(read(KUBERAY / "rayservice.yaml")["spec"]["serveConfigV2"]),
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
    assert {each.name for each in application.deployments} <= {"door", "large"}
    for deployment in application.deployments:
        assert parse_config(Release, deployment.user_config) == config.release
