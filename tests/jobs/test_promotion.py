"""Promotion: what is served changes before the registry does, and the registry only if that went well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from mlflow import MlflowClient

from jobs import promotion
from jobs.promotion import promote
from kcm.errors import KcmError
from pipelines.config import RunConfig
from pipelines.serve.deploy.release import Release
from pipelines.tracking import CHAMPION, champion_of


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

    def change(release: Release, *, timeout_s: float) -> None:
        versions.append(release.version)

    monkeypatch.setattr(promotion, "_running_cluster", cluster)
    monkeypatch.setattr(promotion, "require_servable", lambda *_: None)
    monkeypatch.setattr(promotion, "is_running", lambda: True)
    monkeypatch.setattr(promotion, "change_version", change)
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
    def refuse(release: Release, *, timeout_s: float) -> None:
        raise KcmError("version reviews/1 is refused")

    monkeypatch.setattr(promotion, "change_version", refuse)
    with pytest.raises(KcmError, match="is refused"):
        promote(config, "1")
    assert champion(config) == "2"


def test_a_version_that_is_not_registered_is_an_error(config: RunConfig, offered: list[str]) -> None:
    with pytest.raises(KcmError, match="no registered model 'reviews/9'"):
        promote(config, "9")
    assert (offered, champion(config)) == ([], "2")
