"""Promise: KubeRay's operator finds the champion in the resource that it reconciles the service to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from kcm.errors import ConfigError, KcmError
from pipelines.serve.config import RayServiceConfig, ServeConfig
from pipelines.serve.deploy.deployment import deployment_file, write_down
from pipelines.serve.deploy.kubernetes import patch
from pipelines.serve.release import Release

OLD, NEW = (Release(version=f"films/{number}", bundle=Path(f"/mnt/{number}")) for number in (3, 4))
PATH = "/apis/ray.io/v1/namespaces/prod/rayservices/kcm"


class Kubernetes:
    """An API server with one RayService; `conflicts` of the next patches come too late, `status` refuses all calls."""

    def __init__(self) -> None:
        content = deployment_file(OLD, ServeConfig(port=8765), Path("/mnt/assets"))
        self.resource: dict[str, Any] = {
            "kind": "RayService",
            "metadata": {"name": "kcm", "resourceVersion": "7"},
            "spec": {"serveConfigV2": yaml.safe_dump(content), "rayClusterConfig": {"rayVersion": "2.60.0"}},
        }
        self.conflicts, self.status = 0, 200
        self.calls: list[tuple[str, str | None]] = []
        world = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(world.resource)

            def do_PATCH(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert self.headers["Content-Type"] == "application/merge-patch+json"
                if (
                    world.conflicts
                    or body["metadata"]["resourceVersion"] != world.resource["metadata"]["resourceVersion"]
                ):
                    world.conflicts -= 1
                    world.resource["metadata"]["resourceVersion"] += "1"
                    self._answer({"kind": "Status", "message": "the object has been modified"}, 409)
                    return
                world.resource["spec"] |= body["spec"]
                self._answer(world.resource)

            def _answer(self, content: Any, status: int = 200) -> None:
                world.calls.append((self.command, self.headers.get("Authorization")))
                status = world.status if world.status != 200 else 404 if self.path != PATH else status
                message = {"kind": "Status", "message": f"rayservices is refused ({status})"}
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(message if status in (403, 404) else content).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def config(self, **changed: Any) -> RayServiceConfig:
        values = {"name": "kcm", "namespace": "prod", "token_file": None, "ca_file": None}
        return RayServiceConfig(**values | {"server": f"http://127.0.0.1:{self.server.server_port}"} | changed)

    @property
    def named(self) -> set[str]:
        (application,) = yaml.safe_load(self.resource["spec"]["serveConfigV2"])["applications"]
        versions = {each["user_config"]["version"] for each in application["deployments"]}
        return versions | {application["args"]["version"]}


@pytest.fixture
def kubernetes() -> Iterator[Kubernetes]:
    world = Kubernetes()
    yield world
    world.server.shutdown()
    world.server.server_close()


def test_promotion_and_rollback_are_patched_and_nothing_else(kubernetes: Kubernetes, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n", encoding="utf-8")
    config = ServeConfig(rayservice=kubernetes.config(token_file=token))
    write_down(config, NEW)
    assert kubernetes.named == {"films/4"}
    assert yaml.safe_load(kubernetes.resource["spec"]["serveConfigV2"])["http_options"]["port"] == 8765
    assert kubernetes.resource["spec"]["rayClusterConfig"] == {"rayVersion": "2.60.0"}
    write_down(config, OLD)
    assert kubernetes.named == {"films/3"}
    assert kubernetes.calls == [(method, "Bearer secret") for method in ("GET", "PATCH") * 2]


def test_what_is_named_already_is_not_patched(kubernetes: Kubernetes) -> None:
    patch(kubernetes.config(), OLD)
    assert kubernetes.calls == [("GET", None)]


def test_a_change_in_between_is_read_and_not_overwritten(kubernetes: Kubernetes) -> None:
    kubernetes.conflicts = 2
    patch(kubernetes.config(), NEW)
    assert kubernetes.named == {"films/4"}
    assert [method for method, _ in kubernetes.calls] == ["GET", "PATCH"] * 3
    kubernetes.conflicts = 99
    with pytest.raises(KcmError, match="somebody else changes"):
        patch(kubernetes.config(), OLD)
    assert kubernetes.named == {"films/4"}


def test_a_refusal_is_reported_with_what_kubernetes_says(kubernetes: Kubernetes, tmp_path: Path) -> None:
    kubernetes.status = 403
    with pytest.raises(KcmError, match=r"403 rayservices is refused.*\n?.*get and patch"):
        patch(kubernetes.config(), NEW)
    with pytest.raises(ConfigError, match="service account cannot be read"):
        patch(kubernetes.config(token_file=tmp_path / "none"), NEW)
    kubernetes.status = 200
    with pytest.raises(KcmError, match="404"):
        patch(kubernetes.config(name="other"), NEW)
    kubernetes.resource["spec"] = {"serveConfigV2": "applications: []"}
    with pytest.raises(ConfigError, match="no cascade"):
        patch(kubernetes.config(), NEW)
    with pytest.raises(KcmError, match="does not answer"):
        patch(kubernetes.config(server="http://127.0.0.1:1"), NEW)
