"""Promotion: the pointer changes, what is served follows it, and the registry only if that went well."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from jobs.work import turns
from jobs.work.turns import promote, rollback, rollback_if_refuted
from kcm.errors import KcmError
from pipelines.config import RunConfig
from pipelines.loop.state import LoopState
from pipelines.registry.champion import By, Pointer, ReplacedError
from pipelines.registry.promote import Champions
from pipelines.registry.replicas import ReplicaReport, ReplicaReports
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import LoggedDecision, Origin
from pipelines.tracking.config import CHAMPION
from pipelines.tracking.tracking import set_champion
from tests.champions import alias_of
from tests.jobs.conftest import registered


@pytest.fixture
def config(registry: RunConfig) -> RunConfig:
    """The second version is the champion."""
    client = MlflowClient(registry.tracking.uri_in(registry.storage_path))
    client.set_registered_model_alias(registry.name, CHAMPION, "2")
    return registry


@pytest.fixture(autouse=True)
def servable(monkeypatch: pytest.MonkeyPatch) -> None:
    """These bundles hold nothing that could be served."""
    monkeypatch.setattr(turns, "require_servable", lambda *_: None)


def champion(config: RunConfig) -> str:
    return alias_of(config.tracking.uri_in(config.storage_path), config.name)


@pytest.mark.parametrize("version", ["1", "reviews/1"])
@pytest.mark.parametrize("served", [True, False])
def test_older_version_becomes_champion_and_is_served(tmp_path: Path, version: str, served: bool) -> None:
    """Promise: an older version becomes the champion and what is served follows."""
    config = registered(tmp_path)
    if served:
        pointer(config).reports.write("replica-1", ReplicaReport(record=3, version="reviews/1", refused={}))
    assert promote(config, version) == {"version": "reviews/1", "served": served}
    assert champion(config) == "1"


def pointer(config: RunConfig) -> Pointer:
    return LoopState.of(config).champions.pointer


def test_rollback_returns_to_the_previous_champion(tmp_path) -> None:
    """Promise: a rollback goes to the champion before and today's is never promoted by itself."""
    config = registered(tmp_path)
    today = pointer(config).current().champion
    result = rollback(config)
    assert (result["version"], result["rolled_back"], result["served"]) == ("reviews/1", "reviews/2", False)
    state = json.loads(Path(result["result_path"]).read_text())
    assert state["champion"]["version"] == "reviews/1"
    assert (state["rolled_back"]["version"], state["rolled_back"]["reason"]) == ("reviews/2", "rolled back by hand")
    assert champion(config) == "1"
    assert [each.by for each in pointer(config).history()] == ["run", "run", "rollback"]
    assert pointer(config).rejected(today.digest) == "rolled back by hand"
    with pytest.raises(KcmError, match="no champion before"):
        rollback(config)  # not back to what has just been rolled back


@pytest.mark.parametrize("step", [(Champions, "write_alias"), (Pointer, "reject")])
@pytest.mark.parametrize("version", [None, "2"])
def test_rollback_that_was_killed_after_its_swap_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, step: tuple[type, str]
) -> None:
    """Promise: the same command again leaves the version that the first one meant to leave, and no other."""
    config = registered(tmp_path, ("first", "second", "third"))
    bad = pointer(config).current().champion
    with monkeypatch.context() as killed:
        killed.setattr(*step, killing)
        with pytest.raises(KeyboardInterrupt):
            rollback(config, version, "complaints")
    result = rollback(config, version, "complaints")
    assert (result["rolled_back"], result["version"]) == ("reviews/3", "reviews/2")
    assert champion(config) == "2"
    assert {each["digest"] for each in pointer(config).rejections()} == {bad.digest}
    assert rollback(config, "2")["version"] == "reviews/2"  # a named version is where it ends, however often
    assert rollback(config)["version"] == "reviews/1"


def test_next_turn_rejects_what_a_killed_rollback_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a version that its own traffic refuted is rejected even if the process dies while it rolls back."""
    config = registered(tmp_path)
    promote(config, "1", by="update")
    log = DecisionLog(f"sqlite:///{config.storage_path.absolute()}/feedback.db", 30.0, config.name)
    log.add_decisions([LoggedDecision(Origin("r"), 0, "reviews/1", "small", 0.5)])
    log.refute("reviews/1")
    log.close()
    bad = pointer(config).current().champion
    with monkeypatch.context() as killed:
        killed.setattr(Champions, "write_alias", killing)
        with pytest.raises(KeyboardInterrupt):
            rollback_if_refuted(config)
    assert rollback_if_refuted(config) is None
    LoopState.of(config).champions.write_alias()  # as every turn does
    assert champion(config) == "2"
    assert "refuted" in (pointer(config).rejected(bad.digest) or "")


def killing(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("by", "alarmed"), [("update", True), ("update", False), ("promote", True)])
def test_refuted_champion_of_an_update_is_rolled_back(tmp_path: Path, by: By, alarmed: bool) -> None:
    """Promise: what nobody asked for goes back by itself; what a person promoted stays, and escalates by itself."""
    config = registered(tmp_path)
    promote(config, "1", by=by)
    log = DecisionLog(f"sqlite:///{config.storage_path.absolute()}/feedback.db", 30.0, config.name)
    log.add_decisions([LoggedDecision(Origin("r"), 0, "reviews/1", "small", 0.5)])
    if alarmed:
        log.refute("reviews/1")
    log.close()
    done = rollback_if_refuted(config)
    goes_back = by == "update" and alarmed
    assert champion(config) == ("2" if goes_back else "1")
    assert (done is not None) == goes_back
    if goes_back:
        assert pointer(config).rejected(pointer(config).history()[-2].digest) is not None
        assert rollback_if_refuted(config) is None


def test_challenger_with_void_certificate_is_not_promoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: an update does not promote a challenger that is not certified on the service's runtime."""
    config = registered(tmp_path)
    candidate = pointer(config).history()[0]
    monkeypatch.setattr(turns, "void_release", lambda *_: "the encoder was certified in onnx on cpu")
    assert turns.objection(config, candidate) is None
    monkeypatch.setattr(ReplicaReports, "any_alive", lambda _: True)
    assert "onnx on cpu" in (turns.objection(config, candidate) or "")


@pytest.mark.parametrize("command", [turns.versions, rollback, partial(promote, version="2")])
def test_every_command_corrects_an_alias_that_was_moved_by_hand(tmp_path: Path, command: Callable[..., Any]) -> None:
    """Promise: `models:/NAME@champion` is the champion of the pointer again after the next command."""
    config = registered(tmp_path)
    set_champion(config.tracking.uri_in(config.storage_path), config.name, "1")
    command(config)
    current = pointer(config).current()
    assert current is not None
    assert champion(config) == current.champion.number
    assert current.champion.number == ("1" if command is rollback else "2")


def test_rollback_does_not_undo_a_promotion_it_has_not_seen(tmp_path: Path) -> None:
    """Promise: a rollback of a champion that somebody has just replaced changes and rejects nothing."""
    config = registered(tmp_path)
    seen = pointer(config).current()
    promote(config, "2")
    with pytest.raises(ReplacedError, match="became the champion meanwhile"):
        rollback(config, current=seen)
    assert (champion(config), pointer(config).rejections()) == ("2", [])


def test_a_version_of_another_model_is_refused(config: RunConfig) -> None:
    with pytest.raises(KcmError, match="another model"):
        promote(config, "films/1")
