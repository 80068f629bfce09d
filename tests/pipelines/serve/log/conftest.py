"""The databases that the log can be in: real SQLite files, and a real PostgreSQL server where there is one."""

from pathlib import Path

import pytest

from tests.postgres import BACKENDS


@pytest.fixture(params=BACKENDS)
def any_url(request: pytest.FixtureRequest, path: Path) -> str:
    """The URL of a database in which nothing is yet."""
    if request.param == "sqlite":
        return f"sqlite:///{path}"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "feedback.db"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"
