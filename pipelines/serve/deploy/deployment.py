"""The served cascade as a file that Ray Serve deploys, and the change of its version while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.schema import ServeDeploySchema

from kcm.config import parse_config
from kcm.errors import KcmError
from pipelines._ray_private import end_serve, serve_client, served_applications
from pipelines.serve.config import ServeConfig
from pipelines.serve.deploy.app import (
    APP_NAME,
    LOGGING,
    http_settings,
    proxy_location,
    start_proxy,
    wait_for_proxy,
    wait_until_ready,
)
from pipelines.serve.deploy.kubernetes import patch
from pipelines.serve.deploy.resource import rewrite
from pipelines.serve.release import Release

IMPORT_PATH = "pipelines.serve.deploy.app:application"
POLL_S = 0.1


def deployment_file(
    release: Release, config: ServeConfig, assets_dir: Path, *, checked: bool = False
) -> dict[str, Any]:
    """The content of a file for `serve deploy`; a change of `user_config` alone changes the version while it runs.

    `checked`: what is deployed has passed `require_servable` on this machine just now, and need not do so again.
    """
    return {
        "proxy_location": proxy_location(config).value,
        "http_options": http_settings(config),
        "logging_config": {"encoding": LOGGING.encoding, "enable_access_log": LOGGING.enable_access_log},
        "applications": [
            {
                "name": APP_NAME,
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": {
                    "bundle": str(release.bundle),
                    "version": release.version,
                    "assets_path": str(assets_dir.absolute()),
                    "serve": config.model_dump(mode="json", exclude_unset=True),
                    **({"checked": True} if checked else {}),
                },
                "deployments": [{"name": name, "user_config": release.user_config} for name in _deployments(config)],
            }
        ],
    }


def _deployments(config: ServeConfig) -> list[str]:
    """Those whose configuration is a release."""
    return ["door", "large"] if config.encoder is None else ["door", "encoder", "large"]


def deploy(release: Release, config: ServeConfig, assets_dir: Path, *, ready_timeout_s: float = 120.0) -> str:
    """Run the cascade on the connected cluster, in the way that `serve deploy` does, and give its URL once it is ready.

    The release has passed `require_servable`. Raises KcmError when something else holds the port or the application
    does not become ready in time.
    """
    start_proxy(config)
    try:
        file = deployment_file(release, config, assets_dir, checked=True)
        _client().deploy_apps(ServeDeploySchema.model_validate(file))
        wait_for_proxy(config)
        return wait_until_ready(config, ready_timeout_s)
    except BaseException:
        end_serve()
        raise


def _client() -> Any:
    """What `serve deploy` itself goes through."""
    client = serve_client()
    assert client is not None  # it raises where Serve does not run
    return client


def is_running() -> bool:
    """Whether the connected cluster serves the application."""
    client = serve_client(required=False)
    return client is not None and APP_NAME in serve.status().applications


def write_down(config: ServeConfig, release: Release) -> None:
    """Let what the application is deployed from by others name the champion of `release`: a file, a RayService.

    Raises KcmError where that cannot be done.
    """
    if config.resource is not None:
        rewrite(config.resource, release)
    if config.rayservice is not None:
        patch(config.rayservice, release)


def change_release(
    release: Release, *, timeout_s: float = 300.0, written_down: Callable[[Release], None] = lambda release: None
) -> None:
    """Let the running application serve `release`, and return once every replica of the door does.

    The champion, its challenger and the challenger's share change together in each replica, at once where the versions
    are in memory. `written_down` is called with a release that is served, see `write_down`. Raises KcmError, and leaves
    what was served, when a replica refuses the champion, drops the challenger or is not done in time, or the release
    cannot be written down.
    """
    before = served_applications(_client())
    if APP_NAME not in before:
        raise KcmError(
            "the application was not deployed from a file",
            where=APP_NAME,
            hint="Start it by `kcm serve`, or by `serve deploy` of what `kcm serve --build` writes",
        )
    _apply(before | {APP_NAME: with_release(before[APP_NAME], release)})
    try:
        _wait_until_served(release, timeout_s)
        written_down(release)
    except KcmError:
        _apply(before)  # else a replica that starts anew would start with the version that does not work
        raise


def current_release() -> Release | None:
    """The release in the running application's latest configuration; None where it was not deployed from a file."""
    application = served_applications(_client()).get(APP_NAME)
    if application is None:
        return None
    for deployment in application.deployments:
        if deployment.name == "door" and deployment.user_config:
            return parse_config(Release, deployment.user_config, where="user_config of the door")
    return None


def with_release(application: Any, release: Release) -> Any:
    """The application's configuration with `release` as that of each deployment."""
    values = application.model_dump(exclude_unset=True)
    deployments = {each["name"]: each for each in values.get("deployments", [])}
    for name in ["door", "large", *(["encoder"] if "encoder" in deployments else [])]:
        deployments[name] = deployments.get(name, {"name": name}) | {"user_config": release.user_config}
    return type(application).model_validate(values | {"deployments": list(deployments.values())})


def _apply(applications: dict[str, Any]) -> None:
    _client().deploy_apps(ServeDeploySchema(applications=list(applications.values())))


def _wait_until_served(release: Release, timeout_s: float) -> None:
    """Ask replicas, as the router picks them, until each has answered that it serves `release`."""
    handle = serve.get_app_handle(APP_NAME)
    deadline = time.monotonic() + timeout_s
    serving: set[str] = set()
    while len(serving) < max(1, _num_replicas()):
        if time.monotonic() > deadline:
            raise KcmError(f"{_named(release)} is not served after {timeout_s:g} s", where=APP_NAME)
        status = handle.status.remote().result(timeout_s=timeout_s)
        if serves(status, release):
            serving.add(status["replica"])
        time.sleep(POLL_S)


def serves(status: dict[str, Any], release: Release) -> bool:
    """Whether a replica of this status serves `release`. Raises KcmError where it has refused a version of it."""
    refused, trial = status["refused"], status["challenger"]
    if refused and refused["version"] == release.version:
        raise KcmError(
            f"version {release.version} is refused: {refused['reason']}",
            where=APP_NAME,
            hint=f"Version {status['version']} goes on",
        )
    if status["version"] != release.version or (trial is None) != (release.challenger is None):
        return False
    if trial is None or release.challenger is None:
        return True
    wanted = release.challenger.model_dump(include={"version", "mode", "share", "stage"})
    if any(trial[name] != value for name, value in wanted.items()):
        return False
    if trial["dropped"]:
        raise KcmError(
            f"challenger {trial['version']} is dropped: {trial['dropped']}",
            where=APP_NAME,
            hint=f"Version {status['version']} goes on without it",
        )
    return trial["digest"] is not None


def _named(release: Release) -> str:
    beside = f" with challenger {release.challenger.version}" if release.challenger else ""
    return f"version {release.version}{beside}"


def _num_replicas() -> int:
    states = serve.status().applications[APP_NAME].deployments["door"].replica_states
    return sum(number for state, number in states.items() if state == "RUNNING")


@dataclass(frozen=True)
class RunningService:
    """The running application as `pipelines.loop.promotion.canary` sees it; `written_down` as in `change_release`."""

    timeout_s: float = 300.0
    written_down: Callable[[Release], None] = lambda release: None

    def change(self, release: Release) -> None:
        """As `change_release`; what others deploy from names champions alone."""
        if release.challenger:
            change_release(release, timeout_s=self.timeout_s)
        else:
            change_release(release, timeout_s=self.timeout_s, written_down=self.written_down)

    def dropped(self, version: str) -> str | None:
        """Why the replica that the router picks has dropped this challenger, if it has."""
        trial = serve.get_app_handle(APP_NAME).status.remote().result(timeout_s=self.timeout_s)["challenger"]
        return trial["dropped"] if trial and trial["version"] == version else None
