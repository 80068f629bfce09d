"""Promotion: what is served changes before the registry does, and the registry only if that went well."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from jobs.commands.loop import promotion
from jobs.commands.loop.promotion import promote, rollback, rollback_if_refuted
from jobs.commands.serving.start import service_folder
from kcm.errors import KcmError
from pipelines.cluster.authentication import MODE, TOKEN, TOKEN_PATH, local_token, write_address
from pipelines.config import RunConfig
from pipelines.loop.state import LoopState
from pipelines.registry.champion import By, Pointer
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import LoggedDecision, Origin
from pipelines.serve.release import Release
from pipelines.tracking.config import CHAMPION
from pipelines.tracking.tracking import champion_of, set_champion
from tests.jobs.conftest import registered


@pytest.fixture
def config(registry: RunConfig) -> RunConfig:
    """The second version is the champion."""
    client = MlflowClient(registry.tracking.uri_in(registry.storage_path))
    client.set_registered_model_alias(registry.name, CHAMPION, "2")
    return registry


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Versions that the running service was offered."""
    versions: list[str] = []

    @contextmanager
    def cluster(_: RunConfig) -> Iterator[bool]:
        yield True

    def change(release: Release, **_: Any) -> None:
        versions.append(release.version)

    monkeypatch.setattr(promotion, "running_cluster", cluster)
    monkeypatch.setattr(promotion, "require_servable", lambda *_: None)
    monkeypatch.setattr(promotion, "is_running", lambda: True)
    monkeypatch.setattr(promotion, "change_release", change)
    return versions


def champion(config: RunConfig) -> str:
    return champion_of(config.tracking.uri_in(config.storage_path), config.name)


@pytest.mark.parametrize("version", ["1", "reviews/1"])
def test_an_older_version_is_served_and_becomes_the_champion(
    config: RunConfig, offered: list[str], version: str
) -> None:
    assert promote(config, version) == {"version": "reviews/1", "served": True}
    assert (offered, champion(config)) == (["reviews/1"], "1")


def test_where_nothing_is_served_the_champion_changes_alone(
    config: RunConfig, offered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "is_running", lambda: False)
    assert promote(config, "1") == {"version": "reviews/1", "served": False}
    assert (offered, champion(config)) == ([], "1")


def test_a_refused_version_does_not_become_the_champion(
    config: RunConfig, offered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(release: Release, **_: Any) -> None:
        raise KcmError("version reviews/1 is refused")

    monkeypatch.setattr(promotion, "change_release", refuse)
    with pytest.raises(KcmError, match="is refused"):
        promote(config, "1")
    assert champion(config) == "2"


def test_a_version_that_is_not_registered_is_an_error(config: RunConfig, offered: list[str]) -> None:
    with pytest.raises(KcmError, match="no registered model 'reviews/9'"):
        promote(config, "9")
    assert (offered, champion(config)) == ([], "2")


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Clusters that were joined, each with the token shown to it; one called `gone:1` does not answer."""
    found: list[tuple[str, str | None]] = []

    def join(address: str) -> None:
        if address == "gone:1":
            raise KcmError("no Ray cluster answers")
        found.append((address, os.environ.get(TOKEN_PATH)))

    for name in ("RAY_ADDRESS", MODE, TOKEN, TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(promotion, "join", join)
    monkeypatch.setattr(promotion, "is_running", lambda: True)
    monkeypatch.setattr(promotion, "require_servable", lambda *_: None)
    monkeypatch.setattr(promotion, "change_release", lambda *_, **__: None)
    return found


def test_the_service_of_this_run_is_found_with_its_token(
    config: RunConfig, joined: list[tuple[str, str | None]]
) -> None:
    """Promise: `kcm promote` enters the cluster that `kcm serve` of this run has started, which asks for a token."""
    folder = service_folder(config.storage_folder, config.name)
    with local_token(folder):
        write_address(folder, "127.0.0.1:6379")
        for name in (MODE, TOKEN_PATH):  # those of the service's own process
            os.environ.pop(name)
        assert promote(config, "1")["served"]
    assert joined == [("127.0.0.1:6379", str(folder / "token"))]
    assert TOKEN_PATH not in os.environ


@pytest.mark.parametrize("left", [True, False])
def test_where_no_service_of_this_run_is_found_no_other_is_joined(
    config: RunConfig, joined: list[tuple[str, str | None]], left: bool
) -> None:
    """Promise: a cluster of somebody else is left alone; what a killed service has left counts as none."""
    if left:
        service_folder(config.storage_folder, config.name).mkdir(parents=True)
        write_address(service_folder(config.storage_folder, config.name), "gone:1")
    assert promote(config, "1") == {"version": "reviews/1", "served": False}
    assert joined == []


def test_a_cluster_that_is_named_is_joined(
    config: RunConfig, joined: list[tuple[str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert promote(config, "1")["served"]
    assert joined == [("head:6379", None)]


def pointer(config: RunConfig) -> Pointer:
    return LoopState.of(config).champions.pointer


def test_a_rollback_goes_to_the_champion_before_and_today_s_is_never_promoted_by_itself(tmp_path, monkeypatch) -> None:
    config = registered(tmp_path)
    monkeypatch.setattr(promotion, "require_servable", lambda *_: None)
    today = pointer(config).current().champion
    result = rollback(config)
    assert (result["version"], result["rolled_back"], result["served"]) == ("reviews/1", "reviews/2", False)
    state = json.loads(Path(result["result_path"]).read_text())
    assert state["champion"]["version"] == "reviews/1"
    assert (state["rolled_back"]["version"], state["rolled_back"]["reason"]) == ("reviews/2", "rolled back by hand")
    assert champion(config) == "1"
    assert [each.by for each in pointer(config).history()] == ["run", "run", "rollback"]
    assert pointer(config).rejected(today.digest) == "rolled back by hand"
    with pytest.raises(KcmError, match="no other champion before it that was not rolled back"):
        rollback(config)  # not back to what has just been rolled back


def test_a_rollback_without_an_earlier_champion_is_refused(tmp_path, monkeypatch) -> None:
    config = registered(tmp_path, versions=("first",))
    monkeypatch.setattr(promotion, "require_servable", lambda *_: None)
    with pytest.raises(KcmError, match="has had no other champion before it"):
        rollback(config)
    assert champion(config) == "1"


def test_promotion_by_hand_settles_what_a_hand_moved_in_mlflow(tmp_path, monkeypatch) -> None:
    """Promise: after it, pointer and alias agree again, and an update may start."""
    config = registered(tmp_path)
    monkeypatch.setattr(promotion, "require_servable", lambda *_: None)
    champions = LoopState.of(config).champions
    set_champion(champions.uri, config.name, "1")
    with pytest.raises(KcmError, match="nobody has promoted"):
        champions.agreed()
    promote(config, "1")
    assert champions.agreed().champion.version == "reviews/1"


def test_a_version_of_another_model_is_refused(config: RunConfig, offered: list[str]) -> None:
    with pytest.raises(KcmError, match="another model"):
        promote(config, "films/1")


@pytest.mark.parametrize(("by", "alarmed"), [("update", True), ("update", False), ("promote", True)])
def test_a_champion_of_an_update_that_its_traffic_refutes_is_rolled_back_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: By, alarmed: bool
) -> None:
    """Promise: what nobody asked for goes back by itself; what a person promoted stays, and escalates by itself."""
    config = registered(tmp_path)
    monkeypatch.setattr(promotion, "require_servable", lambda *_: None)
    promote(config, "1", by=by)
    log = DecisionLog(f"sqlite:///{config.storage_path.absolute()}/feedback.db", 5.0, config.name)
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


def test_where_nothing_was_served_nothing_is_rolled_back(tmp_path: Path) -> None:
    assert rollback_if_refuted(registered(tmp_path)) is None


def test_a_challenger_whose_certificate_is_void_in_the_service_is_not_tried_out(
    config: RunConfig, offered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(version="reviews/3", bundle=Path("/bundle"))
    monkeypatch.setattr(promotion, "served_model", lambda *_: release)
    monkeypatch.setattr(promotion, "current_release", lambda: release)
    monkeypatch.setattr(promotion, "void_release", lambda *_: "the encoder was certified in onnx on cpu")
    delivery = promotion.delivered(config, "reviews/3")
    assert delivery.served
    assert "onnx on cpu" in (delivery.stopped or "")
    assert offered == []
