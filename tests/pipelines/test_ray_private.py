"""What the pipelines take from Ray's private parts is there, does what it is used for, and is taken in one module."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from ray._private import ray_constants, services
from ray._raylet import get_authentication_mode
from ray.actor import ActorMethod
from ray.dashboard.modules.job import job_supervisor
from ray.exceptions import RayTaskError, UserCodeException
from ray.serve import api, context
from ray.serve._private import client, controller, http_util

import jobs
import pipelines
from kcm.errors import DataError
from pipelines import _ray_private as private

OUTWARD = "192.0.2.7"


@pytest.mark.parametrize("enabled", [True, False])
def test_loopback_is_kept_within_the_block_alone(monkeypatch: pytest.MonkeyPatch, enabled: bool) -> None:
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", enabled)
    monkeypatch.setattr(services, "node_ip_address_from_perspective", lambda *_: OUTWARD, raising=True)
    monkeypatch.setattr(services.ray._private.worker, "_global_node", None)
    with private.loopback_kept():
        assert services.get_node_ip_address() == "127.0.0.1"
    assert ray_constants.ENABLE_RAY_CLUSTER is enabled
    assert services.get_node_ip_address() == (OUTWARD if enabled else "127.0.0.1")


def test_authentication_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    for mode in ("token", "disabled"):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        private.reread_authentication()
        modes.append(get_authentication_mode())
    monkeypatch.undo()
    private.reread_authentication()
    assert modes[0] != modes[1]


def test_the_client_of_serve_takes_files_and_tells_what_is_deployed() -> None:
    assert "raise_if_no_controller_running" in inspect.signature(context._get_global_client).parameters
    assert "config" in inspect.signature(client.ServeControllerClient.deploy_apps).parameters
    assert "self._controller" in inspect.getsource(client.ServeControllerClient.__init__)
    assert callable(controller.ServeController.get_app_configs)


def test_the_end_of_serve_is_what_serve_does_itself() -> None:
    """The same calls in the same order, with the one option that its own call lacks."""
    theirs = inspect.getsource(client.ServeControllerClient.shutdown)
    ours = inspect.getsource(private.end_serve)
    for step in ("shutdown_cached_handles()", "_controller.graceful_shutdown"):
        assert step in theirs
        assert step in ours
    assert "_disconnect()" in inspect.getsource(api.shutdown)
    assert "max_task_retries" in inspect.signature(ActorMethod._remote).parameters
    assert "max_task_retries=0" in ours


def test_the_text_of_a_taken_address_is_ray_s() -> None:
    assert "Failed to bind" in inspect.getsource(http_util)
    assert private.is_bind_failure(RuntimeError("Failed to bind to address '127.0.0.1:8000'."))
    assert not private.is_bind_failure(RuntimeError("no such node"))


def test_the_log_is_cut_from_the_message_of_a_job() -> None:
    assert "last available logs" in inspect.getsource(job_supervisor)
    assert private.job_failure("exit code 2, last available logs (truncated to 20,000 chars):\nkcm") == "exit code 2"


def test_the_loggers_of_a_submission_are_those_of_ray_s_modules() -> None:
    assert all(find_spec(name) for name in private.JOB_LOGGERS)
    assert all("logging.getLogger(__name__)" in inspect.getsource(import_module(n)) for n in private.JOB_LOGGERS)


def test_the_message_of_our_error_is_found_in_ray_s() -> None:
    text = "Traceback:\nkcm.errors.DataError: 2 rows have no text (rows.csv)\n\nThe above exception\nUserCodeException"
    assert private.kcm_error_text(RayTaskError("map", text, UserCodeException())) == "2 rows have no text (rows.csv)"
    assert private.kcm_error_text(ValueError("no rows")) is None
    assert f"{DataError.__module__}.{DataError.__name__}" in text


def test_no_other_module_reaches_into_ray() -> None:
    reaches = re.compile(r"\bray(\.\w+)*\._|from ray\S* import .*\b_|ray\.train\.v2|_internal\b")
    root = Path(pipelines.__file__).parent.parent
    users = {
        str(path.relative_to(root))
        for package in (pipelines, jobs)
        for path in Path(package.__file__).parent.rglob("*.py")
        if reaches.search(path.read_text("utf-8"))
    }
    assert users == {"pipelines/_ray_private.py"}
