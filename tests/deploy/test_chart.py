"""The Helm chart, rendered by helm itself: what KubeRay, Ray Serve and the configuration take, and what is refused.

Without helm the tests are skipped, or fail where KCM_TEST_HELM=1; `python .ci/helm` brings it.
"""

import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.cli import COMMANDS
from kcm.config import load_config
from pipelines.config import RunConfig
from pipelines.serve.deploy.environment import middleware
from pipelines.serve.deploy.http_replica import HttpReplica
from pipelines.serve.metrics import ServeMetrics
from pipelines.serve.sources import ChampionSource
from tests.serve_file import deployed_application

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "kcm"
KUBERAY = yaml.safe_load(Path(__file__).with_name("kuberay.yaml").read_text(encoding="utf-8"))
CAPACITY = "karpenter.sh/capacity-type"
HELM = shutil.which("helm", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
pytestmark = pytest.mark.skipif(
    HELM is None and os.environ.get("KCM_TEST_HELM") != "1", reason="no helm: `python .ci/helm` puts one into .venv/bin"
)

BUCKET = """
name: reviews
storage_path: s3://bucket/kcm
assets_path: s3://bucket/assets
serve:
  num_replicas: 3
  allowed_hosts: [kcm.example.org]
  auth: {requests_per_minute: 600}
  feedback: {url: postgresql+psycopg://kcm@postgres/kcm, keep_bytes: 10737418240}
update: {}
"""
LAPTOP = """
name: reviews
storage_path: /mnt/kcm/storage
assets_path: /mnt/kcm/assets
serve: {feedback: {url: "sqlite:////mnt/kcm/storage/feedback.db"}}
update: {}
"""
SETS = {
    "laptop": (LAPTOP, ["laptop"]),
    "bucket": (BUCKET, ["bucket"]),
    "gpu": (BUCKET, ["bucket", "gpu"]),
}


class Chart:
    """What helm makes of the chart with one set of values and a CONFIG of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._config, sets = SETS[name]
        self._folder = folder
        self._values = [f"--values={CHART / f'values-{each}.yaml'}" for each in sets]

    def helm(self, verb: str, *more: str, config: str | None = None) -> subprocess.CompletedProcess[str]:
        assert HELM is not None, "KCM_TEST_HELM=1, but there is no helm: python .ci/helm"
        file = self._folder / "config.yaml"
        file.write_text(self._config if config is None else config, encoding="utf-8")
        given = [*self._values, "--set=serve.enabled=true,update.enabled=true", f"--set-file=config={file}", *more]
        return subprocess.run([HELM, *verb.split(), str(CHART), *given], capture_output=True, text=True, timeout=240)

    def resources(self, *more: str) -> list[dict[str, Any]]:
        done = self.helm("template kcm", *more)
        assert done.returncode == 0, done.stderr
        return [resource for resource in yaml.safe_load_all(done.stdout) if resource]


@pytest.fixture(params=SETS)
def chart(request: pytest.FixtureRequest, tmp_path: Path) -> Chart:
    return Chart(request.param, tmp_path)


@pytest.fixture
def bucket(tmp_path: Path) -> Chart:
    return Chart("bucket", tmp_path)


def of_kind(resources: list[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    return (resource for resource in resources if resource["kind"] == kind)


def within(value: Any, key: str) -> Iterator[Any]:
    """Everything below `key`, at any depth."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        if name == key:
            yield child
        yield from within(child, key)


def pods_of(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Templates of pods with their labels: of clusters, submitters and cron jobs."""
    named = [pod for key in ("template", "submitterPodTemplate") for pod in within(resources, key)]
    return [pod for pod in named if "containers" in pod.get("spec", {})]


def unknown_names(kind: str, fields: dict[str, Any]) -> list[str]:
    """Fields that KubeRay does not have, of a specification and of what lies in it."""
    kinds = {"rayClusterSpec": "cluster", "rayClusterConfig": "cluster", "jobTemplate": "RayJob"}
    found = [f"{kind}.{name}" for name in fields if name not in KUBERAY["names"][kind]]
    for name, value in fields.items():
        if (inner := kinds.get(name, name)) in KUBERAY["names"]:
            for each in value if isinstance(value, list) else [value]:
                found += unknown_names(inner, each)
    return found


def test_helm_takes_the_values_and_kuberay_knows_every_field(chart: Chart) -> None:
    linted = chart.helm("lint --strict")
    assert linted.returncode == 0, linted.stdout + linted.stderr
    ours = [resource for resource in chart.resources() if resource["apiVersion"] == "ray.io/v1"]
    assert {"RayJob", "RayService"} <= {resource["kind"] for resource in ours}
    for resource in ours:
        assert unknown_names(resource["kind"], resource["spec"]) == []
        slipped = copy.deepcopy(resource["spec"])
        (cluster,) = (*within(slipped, "rayClusterSpec"), *within(slipped, "rayClusterConfig"))
        cluster["headGroupSpec"]["rayStartParameters"] = {}
        assert unknown_names(resource["kind"], slipped) == ["headGroupSpec.rayStartParameters"]


def test_pods_are_locked_up_and_find_what_they_mount(chart: Chart) -> None:
    """Promise: no pod is root, writes to its image or holds a secret's value."""
    resources = chart.resources()
    pods = pods_of(resources)
    assert len(pods) >= 5
    beside = [options["securityContext"] for options in within(resources, "autoscalerOptions")]
    for pod in pods:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        (container,) = spec["containers"]
        for each in [container["securityContext"], *beside]:
            assert each["readOnlyRootFilesystem"] is True
            assert each["allowPrivilegeEscalation"] is False
            assert each["capabilities"] == {"drop": ["ALL"]}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        folders = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(folders.values()) == volumes.keys()
        environment = {each["name"]: each for each in container["env"]}
        assert "emptyDir" in volumes[folders[environment["HOME"]["value"]]]
        assert "value" not in environment.get("PGPASSWORD", {})
        assert container["resources"]["requests"] == container["resources"]["limits"]


def test_a_cluster_asks_for_a_token_and_has_no_work_on_its_head(chart: Chart) -> None:
    pinned = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    resources = chart.resources()
    clusters = [*within(resources, "rayClusterSpec"), *within(resources, "rayClusterConfig")]
    for cluster in clusters:
        assert [cluster["rayVersion"]] == pinned
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert cluster["autoscalerOptions"]["version"] == "v2"
    tolerant = ["gcsFaultToleranceOptions" in cluster for cluster in within(resources, "rayClusterConfig")]
    assert tolerant == [chart.name != "laptop"]  # by Redis, where the values name one


def test_what_serves_and_every_head_is_on_nodes_that_stay(bucket: Chart) -> None:
    resources = bucket.resources()
    run, serve = ([*within(resources, key)] for key in ("rayClusterSpec", "rayClusterConfig"))
    run, serve = ([pod["spec"]["nodeSelector"][CAPACITY] for pod in pods_of(pods)] for pods in (run, serve))
    assert (run, serve) == (["on-demand", "spot", "on-demand"], ["on-demand", "on-demand"])  # the heads first


def test_nobody_reaches_a_cluster_but_by_a_label(chart: Chart) -> None:
    """Promise: what of a cluster asks for no token can be reached by its own pods alone."""
    resources = chart.resources()
    policies = [policy["spec"] for policy in of_kind(resources, "NetworkPolicy")]
    for pod in pods_of(resources):
        labels = pod["metadata"]["labels"].items()
        assert "app.kubernetes.io/name" not in dict(labels)  # KubeRay's own, by which the Services of heads select
        (policy,) = (each for each in policies if each["podSelector"]["matchLabels"].items() <= labels)
        assert policy["policyTypes"] == ["Ingress"]
        for rule in policy["ingress"]:
            peers = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
            assert all(peers)
            ports = {port["port"] for port in rule.get("ports", [])}
            if not ports:
                assert rule["from"] == [{"podSelector": policy["podSelector"]}]
            if 8265 in ports:
                assert peers == [{"app.kubernetes.io/name": "kuberay-operator"}]
            assert 8404 not in ports  # HAProxy's statistics, which Ray opens to everybody


def test_the_service_deploys_the_champion_of_the_configuration(chart: Chart) -> None:
    (service,) = of_kind(chart.resources(), "RayService")
    values = yaml.safe_load(service["spec"]["serveConfigV2"])
    application, config = deployed_application(values)
    assert isinstance(config.source, ChampionSource)
    assert config.settings.application == "reviews"  # where `kcm update` looks for its decisions
    assert "kcm-serve-svc" in config.serve.hosts
    assert "*" not in config.serve.hosts
    assert [deployment.name for deployment in application.deployments] == [HttpReplica.name]
    assert config.serve.feedback.keep_bytes == 10 * 2**30
    for pod in pods_of([service]):
        (container,) = pod["spec"]["containers"]
        environment = {each["name"]: each.get("value") for each in container["env"]}
        assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "1"  # on the head alone, all requests would pass through it
        callback = f"{middleware.__module__}:{middleware.__name__}"
        assert environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == callback
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert mounted[str(config.serve.auth.keys_file and config.serve.auth.keys_file.parent)] == "keys"


def test_jobs_run_commands_that_exist_on_the_configuration(chart: Chart) -> None:
    resources = chart.resources()
    commands = [*map(shlex.split, within(resources, "entrypoint")), *within(resources, "command")]
    commands = [command for command in commands if command[0] == "kcm"]
    assert sorted(command[1] for command in commands) == ["run", "update"]
    assert {command[1] for command in commands} <= set(COMMANDS)
    assert {command[2] for command in commands} == {"/etc/kcm/config.yaml"}
    (config,) = (
        each["data"]["config.yaml"] for each in of_kind(resources, "ConfigMap") if "config.yaml" in each["data"]
    )
    assert yaml.safe_load(config)["name"] == "reviews"


def test_another_configuration_makes_another_job(bucket: Chart) -> None:
    """Promise: another configuration is another job and the same one is not."""
    names = [
        next(of_kind(bucket.resources(*more), "RayJob"))["metadata"]["name"]
        for more in ([], ["--set=serve.enabled=false"], ["--set=image=kcm:0.2.0"])
    ]
    assert names[0] == names[1] != names[2]


def test_alerts_use_existing_metrics_and_say_what_to_do(bucket: Chart) -> None:
    """Promise: alerts ask for metrics that exist and the page says what to do."""
    resources = bucket.resources("--set=monitoring.maxCallRate=0.4")
    (rule,) = of_kind(resources, "PrometheusRule")
    alerts = {each["alert"]: each for each in rule["spec"]["groups"][0]["rules"]}
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(Kcm\w+)` \|", page, re.MULTILINE)) == alerts.keys()
    for alert in alerts.values():
        series = re.findall(r"(\w+)\{(.*?)\}", alert["expr"])
        assert series
        for name, labels in series:
            assert name == "up" or name.removeprefix("ray_") in ServeMetrics().names
            assert 'namespace="default",service="kcm-metrics"' in labels  # not those of another release
    (dashboard,) = within([*of_kind(resources, "ConfigMap")], "kcm.json")
    assert json.loads(dashboard) == json.loads((CHART / "dashboard.json").read_text(encoding="utf-8"))


def test_prometheus_finds_the_pods_and_a_drain_leaves_workers(bucket: Chart) -> None:
    resources = bucket.resources()
    (monitor,), (budget,) = of_kind(resources, "ServiceMonitor"), of_kind(resources, "PodDisruptionBudget")
    (service,) = of_kind(resources, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (served,) = of_kind(resources, "RayService")
    ports = [{port["name"] for port in pod["spec"]["containers"][0]["ports"]} for pod in pods_of([served])]
    for port in service["spec"]["ports"]:
        assert all(port["name"] in names for names in ports)
    for pod in pods_of([served]):
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        selected = budget["spec"]["selector"]["matchLabels"].items()
        assert selected <= (pod["metadata"]["labels"] | {"ray.io/node-type": "worker"}).items()  # the operator's label
    (group,) = served["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert 0 < budget["spec"]["minAvailable"] < group["minReplicas"]


def test_versions_are_those_of_the_project() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    about, values = (yaml.safe_load((CHART / f"{name}.yaml").read_text()) for name in ("Chart", "values"))
    assert version is not None
    assert {about["version"], about["appVersion"]} == {version[1]}
    assert values["image"] == f"kcm:{version[1]}"
    assert f"v{about['annotations']['kuberay']}" == KUBERAY["kuberay"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--set=image=kcm", "at '/image': 'kcm' does not match pattern"),
        ("--set=image=kcm:latest", "image kcm:latest: nodes that start later would get another version"),
        ("--set=serve.replica=3", "at '/serve': additional properties 'replica' not allowed"),
        ("--set=serve.keysSecret=", "at '/serve/keysSecret': '' does not match pattern"),
        ('--set-json=env=[{"name": "PGPASSWORD", "value": "1"}]', "at '/env/0': missing property 'valueFrom'"),
        (
            "--set=serve.upgrade.type=NewClusterWithIncrementalUpgrade,serve.upgrade.gatewayClass=x,serve.upgrade.stepPercent=60",
            "serve.upgrade: stepPercent 60 is more than surgePercent 50",
        ),
        (
            '--set-json=serve.groups=[{"name":"cpu","min":3,"max":1,"resources":{"cpu":1,"memory":"1Gi"}}]',
            "1 HTTP replicas",
        ),
        ("--set=update.schedule=daily", "at '/update/schedule': 'daily' does not match pattern"),
    ],
)
def test_values_that_cannot_work_are_refused_in_one_line(bucket: Chart, given: str, said: str) -> None:
    done = bucket.helm("template kcm", given)
    assert done.returncode != 0
    assert len([line for line in done.stderr.splitlines() if said in line]) == 1, done.stderr


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", "`name` is missing in CONFIG (--set-file config=CONFIG)"),
        (BUCKET.replace("s3://bucket/kcm", "storage"), "storage_path storage is on no volume of the pods"),
        (LAPTOP, "storage_path /mnt/kcm/storage is on no volume of the pods"),
        (BUCKET.replace("num_replicas: 3", "num_replicas: 9"), "serve.num_replicas 9"),
        (re.sub("  feedback.*", "", BUCKET), "`serve.feedback.url` is missing in CONFIG"),
        (re.sub("postgresql.*/kcm,", "sqlite:////log.db,", BUCKET), "SQLite cannot be written by several replicas"),
    ],
)
def test_unservable_configuration_is_refused_in_one_line(bucket: Chart, config: str, said: str) -> None:
    """Promise: a configuration that no cluster can serve is refused in one line."""
    done = bucket.helm("template kcm", config=config)
    assert done.returncode != 0
    assert len([line for line in done.stderr.splitlines() if said in line]) == 1, done.stderr


@pytest.mark.parametrize("name", ["9kcm", "a-very-long-release-name-of-thirty"])
def test_a_release_that_kuberay_could_not_name_is_refused(bucket: Chart, name: str) -> None:
    assert "at most 29 small letters" in bucket.helm(f"template {name}").stderr


def test_the_plain_manifests_are_those_of_the_chart(tmp_path: Path) -> None:
    """Promise: deploy/kubernetes is what `.ci/manifests` renders, of a CONFIG that kcm reads."""
    subprocess.run([sys.executable, ROOT / ".ci" / "manifests", tmp_path], check=True)
    plain = ROOT / "deploy" / "kubernetes"
    for name, kind in {"rayjob.yaml": "RayJob", "rayservice.yaml": "RayService"}.items():
        text = (plain / name).read_text(encoding="utf-8")
        assert text == (tmp_path / name).read_text(encoding="utf-8")
        (resource,) = of_kind([each for each in yaml.safe_load_all(text) if each], kind)
        assert unknown_names(kind, resource["spec"]) == []
    load_config(RunConfig, plain / "config.yaml")
