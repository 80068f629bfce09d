"""The RayService that KubeRay reconciles the service to, patched with what is promoted.

By Kubernetes' own HTTP API: a JSON merge patch of `spec.serveConfigV2`, which names the resource version that was read,
so that somebody else's change in between is never overwritten.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import yaml
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from kcm.errors import ConfigError, KcmError
from pipelines.serve.config import RayServiceConfig
from pipelines.serve.deploy.resource import CONFIG, with_champion
from pipelines.serve.release import Release

if TYPE_CHECKING:
    import httpx

API = "apis/ray.io/v1"
ATTEMPTS = 5


class _ChangedError(KcmError):
    """Somebody else changed the resource after it was read."""


def patch(config: RayServiceConfig, release: Release) -> None:
    """Let the RayService name the champion of `release`; nothing is written where it does already.

    Raises ConfigError where it deploys no cascade of ours or the token cannot be read, KcmError where the server
    refuses or does not answer.
    """
    with _client(config) as client:
        _patch(client, config, release)


@retry(
    retry=retry_if_exception_type(_ChangedError),
    stop=stop_after_attempt(ATTEMPTS),
    wait=wait_random_exponential(0.05, max=1.0),
    reraise=True,
)
def _patch(client: httpx.Client, config: RayServiceConfig, release: Release) -> None:
    found = _call(client, config, "GET")
    try:
        before = found["spec"][CONFIG]
    except KeyError:
        raise ConfigError(f"it has no spec.{CONFIG}", where=_named(config)) from None
    after = with_champion(before, release, where=_named(config))
    if yaml.safe_load(after) == yaml.safe_load(before):
        return
    body = {"metadata": {"resourceVersion": found["metadata"]["resourceVersion"]}, "spec": {CONFIG: after}}
    _call(client, config, "PATCH", body)


def _call(client: httpx.Client, config: RayServiceConfig, method: str, body: dict[str, Any] | None = None) -> Any:
    import httpx

    try:
        response = client.request(
            method,
            f"{API}/namespaces/{config.namespace}/rayservices/{config.name}",
            json=body,
            headers={"Content-Type": "application/merge-patch+json"} if body else None,
        )
    except httpx.HTTPError as error:
        raise KcmError(
            f"Kubernetes does not answer: {type(error).__name__}",
            where=config.server,
            hint="Look at serve.rayservice.server; outside of the cluster, start `kubectl proxy`",
        ) from None
    if response.status_code == 409:
        raise _ChangedError("somebody else changes the resource all the time", where=_named(config), hint="Start again")
    if response.is_error:
        raise KcmError(
            f"Kubernetes refuses to {method.lower()} it: {response.status_code} {_reason(response)}",
            where=_named(config),
            hint="The service account needs the verbs get and patch on rayservices in that namespace",
        )
    return response.json()


def _client(config: RayServiceConfig) -> httpx.Client:
    import httpx

    headers = {}
    try:
        if config.token_file is not None:
            headers["Authorization"] = f"Bearer {config.token_file.read_text(encoding='utf-8').strip()}"
        verify = ssl.create_default_context(cafile=str(config.ca_file)) if config.ca_file else True
    except OSError as error:
        raise ConfigError(
            f"the service account cannot be read: {error}",
            where="serve.rayservice",
            hint="Outside of the cluster set token_file and ca_file, to null behind `kubectl proxy`",
        ) from None
    return httpx.Client(base_url=config.server, headers=headers, verify=verify, timeout=config.timeout_s)


def _reason(response: httpx.Response) -> str:
    """What Kubernetes says, in its Status object."""
    try:
        return str(response.json()["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def _named(config: RayServiceConfig) -> str:
    return f"RayService {config.namespace}/{config.name}"
