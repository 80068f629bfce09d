"""A storage of an earlier version is taken along by one command, which can be given again."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from jobs.commands.storage.migration import migrate
from kcm.errors import ArtefactError
from kcm.large.response_cache import ResponseCache, ResponseStore
from pipelines.batch.asking import RESPONSES_FILE
from pipelines.serve.log.location import LOG_FILE
from tests.pipelines.store.test_migrate import FIRST, of_format_1


def test_artefacts_paid_answers_and_log_are_taken_along(tmp_path: Path) -> None:
    of_format_1(tmp_path, FIRST, "rows")
    answers = ResponseCache(ResponseStore.in_file(tmp_path / RESPONSES_FILE), "big")
    answers.reserve(1.0)
    answers.keep("question", {"said": "yes"}, 1.0, 0.5)
    sqlite3.connect(tmp_path / LOG_FILE).close()
    first = migrate(tmp_path)
    assert first == {"moved": 1, "current": 0, "damaged": 0, "paid_answers": "current", "log": "current"}
    assert json.loads(json.dumps(first)) == first
    assert migrate(tmp_path) == first | {"moved": 0, "current": 1}
    assert ResponseCache(ResponseStore.in_file(tmp_path / RESPONSES_FILE), "big").find("question") == {"said": "yes"}
    tables = {name for (name,) in sqlite3.connect(tmp_path / LOG_FILE).execute("SELECT name FROM sqlite_master")}
    assert {"decisions", "kcm_log_version"} <= tables


def test_a_damaged_file_of_paid_answers_is_said(tmp_path: Path) -> None:
    of_format_1(tmp_path, FIRST, "rows")
    (tmp_path / RESPONSES_FILE).write_bytes(b"no database" * 100)
    with pytest.raises(ArtefactError, match=RESPONSES_FILE):
        migrate(tmp_path)
