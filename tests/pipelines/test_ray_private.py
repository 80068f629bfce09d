"""What the pipelines take from Ray's private parts is there, does what it is used for, and is taken in one module."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from ray._private import node, parameter, ray_constants, services, state, worker
from ray._raylet import get_authentication_mode
from ray.actor import ActorMethod
from ray.dashboard.modules.job import job_supervisor
from ray.exceptions import RayTaskError, UserCodeException
from ray.serve import api, context
from ray.serve._private import api as serve_private
from ray.serve._private import client, controller, http_util
from ray.train.v2._internal.execution import callback
from ray.train.v2._internal.state import util as state_util
from ray.train.v2.api import data_parallel_trainer as trainers

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


def test_a_bare_node_is_asked_for_by_ray_s_own_settings_within_the_block_alone() -> None:
    theirs = inspect.signature(parameter.RayParams).parameters
    started = inspect.getsource(worker.init)
    for name in private._BARE:
        assert name in theirs
        assert f"{name}=" not in started  # else it would win
    assert "ray._private.parameter.RayParams(" in started
    before = _replaced_in_a_bare_node()
    with private.bare_node():
        params = parameter.RayParams()
        assert (params.no_monitor, params.include_log_monitor, params.dashboard_agent_listen_port) == (True, False, 0)
        node.Node.start_api_server(None, include_dashboard=False, raise_on_failure=False)
        assert not set(before) & set(_replaced_in_a_bare_node())
    assert _replaced_in_a_bare_node() == before


def _replaced_in_a_bare_node() -> list[object]:
    dependencies = services.ray._private.utils.get_dashboard_dependency_error
    return [parameter.RayParams, node.Node.start_api_server, services.get_node, dependencies]


@pytest.mark.parametrize("url", [None, "", "127.0.0.1:8265"])
def test_trainers_have_a_cleaner_only_where_a_dashboard_answers_it(
    url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "get_dashboard_url", lambda: url)
    theirs = trainers.PlacementGroupCleanerCallback
    assert "= PlacementGroupCleanerCallback()" in inspect.getsource(trainers)
    assert "ray.util.state import get_actor" in inspect.getsource(state_util)  # which asks the dashboard
    with private.trainers_without_cleaner():
        made = trainers.PlacementGroupCleanerCallback()
        assert isinstance(made, callback.ControllerCallback)
        assert (type(made) is theirs) == bool(url)
    assert trainers.PlacementGroupCleanerCallback is theirs


def test_a_node_is_waited_for_where_ray_waits_for_it() -> None:
    assert list(inspect.signature(services.get_node).parameters) == ["gcs_address", "node_id"]
    assert "ray._private.services.get_node(" in inspect.getsource(node.Node.__init__)
    assert "start_api_server" in inspect.getsource(node.Node.start_head_processes)


def test_a_node_is_found_as_soon_as_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = iter([[], [{"NodeID": "another"}], [{"NodeID": "mine"}]])
    monkeypatch.setattr(state.GlobalState, "_initialize_global_state", lambda *_: None)
    monkeypatch.setattr(state.GlobalState, "node_table", lambda _: next(tables))
    private._wait_for_node("127.0.0.1:1", "mine")
    assert next(tables, None) is None


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


def test_serve_is_started_as_serve_starts_itself_but_for_the_wait() -> None:
    theirs = inspect.getsource(serve_private.serve_start)
    assert "_create_controller_and_proxy_refs(" in theirs
    assert "_set_global_client(client)" in theirs
    made = set(inspect.signature(serve_private._create_controller_and_proxy_refs).parameters) - {"kwargs"}
    assert made == {*private._SERVE_DEFAULTS, "proxy_location", "http_options", "global_logging_config"}
    assert ".get_proxies.remote()" in inspect.getsource(serve_private._create_controller_and_proxy_refs)
    assert ".ready.remote()" in inspect.getsource(serve_private._create_controller_and_proxy_refs)


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
