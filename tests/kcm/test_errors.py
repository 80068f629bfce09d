"""An error is one line that says what, where and how to fix it, in any process."""

import errno
import pickle
import sqlite3

import pytest

from kcm.errors import ArtefactError, ConfigError, DataError, KcmError, is_disk_full


@pytest.mark.parametrize("kind", [KcmError, ConfigError, DataError, ArtefactError])
def test_an_error_crosses_processes_unharmed(kind) -> None:
    error = pickle.loads(pickle.dumps(kind("it broke", where="here", hint="Glue it")))
    assert type(error) is kind
    assert str(error) == "it broke (here). Glue it"


@pytest.mark.parametrize(
    "cause", [OSError(errno.ENOSPC, "No space left"), sqlite3.OperationalError("database or disk is full")]
)
def test_a_full_disk_is_found_behind_other_errors(cause: Exception) -> None:
    error = RuntimeError("the store failed")
    assert not is_disk_full(error)
    error.__cause__ = cause
    assert is_disk_full(error)
