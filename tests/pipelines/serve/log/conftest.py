"""The databases that the log can be in: real SQLite files, and a real PostgreSQL server where there is one."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipelines.serve.log.decisions import DecisionLog
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


@pytest.fixture
def log(any_url: str) -> Iterator[DecisionLog]:
    """The log of the application `films`, whose tables are made."""
    with closing(DecisionLog(any_url, 30.0, "films")) as log:
        log.open()
        yield log
