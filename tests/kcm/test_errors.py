"""An error is one line that says what, where and how to fix it, in any process."""

import pickle

import pytest

from kcm.errors import ArtefactError, ConfigError, DataError, KcmError


@pytest.mark.parametrize("kind", [KcmError, ConfigError, DataError, ArtefactError])
def test_an_error_crosses_processes_unharmed(kind) -> None:
    error = pickle.loads(pickle.dumps(kind("it broke", where="here", hint="Glue it")))
    assert type(error) is kind
    assert str(error) == "it broke (here). Glue it"
