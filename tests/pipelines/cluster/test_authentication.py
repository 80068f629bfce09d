"""A local cluster has a token of its own, which nobody else can read and which goes with it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pipelines.cluster.authentication import MODE, TOKEN, TOKEN_PATH, find_cluster, local_token, settings, write_address
from tests.ray_private import asks_for_a_token


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (MODE, TOKEN, TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("named", [True, False])
def test_a_token_is_in_a_folder_of_its_own_and_goes_with_the_block(tmp_path: Path, named: bool) -> None:
    seen = []
    for _ in range(2):
        with local_token(tmp_path / "run" / "service" if named else None) as folder:
            file = Path(os.environ[TOKEN_PATH])
            assert file.parent == folder
            assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(file.stat().st_mode)) == (0o700, 0o600)
            assert len(file.read_text()) == 64
            seen.append(file.read_text())
            assert (os.environ[MODE], asks_for_a_token()) == ("token", True)
        assert not folder.exists()
        assert not {MODE, TOKEN_PATH} & os.environ.keys()
        assert not asks_for_a_token()
    assert seen[0] != seen[1]


@pytest.mark.parametrize("name", [TOKEN, TOKEN_PATH])
def test_a_person_s_own_token_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "own")
    with local_token(None) as folder:
        assert os.environ[MODE] == "token"
        assert os.environ[name] == "own"
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_person_s_own_mode_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv(MODE, mode)
    with local_token(None):
        assert os.environ[MODE] == mode
        assert TOKEN_PATH not in os.environ


def test_what_a_killed_process_left_gives_way(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir(mode=0o755)
    (tmp_path / "service" / "token").write_text("old")
    with local_token(tmp_path / "service") as folder:
        assert (folder / "token").read_text() != "old"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_other_commands_find_the_cluster_while_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "service"
    assert find_cluster(folder) is None
    with local_token(folder):
        write_address(folder, "127.0.0.1:6379")
        found = find_cluster(folder)
        assert found is not None
        assert found.address == "127.0.0.1:6379"
        assert found.authentication == {MODE: "token", TOKEN_PATH: str(folder / "token")}
    assert find_cluster(folder) is None


def test_settings_are_seen_by_ray_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: Ray, which reads its settings once, authenticates as asked, and afterwards as before."""
    with settings({MODE: "token", TOKEN: "t"}):
        assert asks_for_a_token()
    assert not asks_for_a_token()
    assert TOKEN not in os.environ
