"""A local cluster has a token of its own, which nobody else can read and which goes with it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pipelines.cluster.authentication import MODE, TOKEN, TOKEN_PATH, local_token, settings
from tests.ray_private import asks_for_a_token


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (MODE, TOKEN, TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)


def test_a_token_is_in_a_folder_of_its_own_and_goes_with_the_block() -> None:
    seen = []
    for _ in range(2):
        with local_token():
            file = Path(os.environ[TOKEN_PATH])
            assert [stat.S_IMODE(path.stat().st_mode) for path in (file.parent, file)] == [0o700, 0o600]
            assert len(file.read_text()) == 64
            seen.append(file.read_text())
            assert (os.environ[MODE], asks_for_a_token()) == ("token", True)
        assert not file.parent.exists()
        assert not {MODE, TOKEN_PATH} & os.environ.keys()
        assert not asks_for_a_token()
    assert seen[0] != seen[1]


@pytest.mark.parametrize("name", [TOKEN, TOKEN_PATH])
def test_a_person_s_own_token_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "own")
    with local_token():
        assert (os.environ[MODE], os.environ[name]) == ("token", "own")


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_person_s_own_mode_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv(MODE, mode)
    with local_token():
        assert os.environ[MODE] == mode
        assert TOKEN_PATH not in os.environ


def test_settings_are_seen_by_ray_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: Ray, which reads its settings once, authenticates as asked, and afterwards as before."""
    with settings({MODE: "token", TOKEN: "t"}):
        assert asks_for_a_token()
    assert not asks_for_a_token()
    assert TOKEN not in os.environ
