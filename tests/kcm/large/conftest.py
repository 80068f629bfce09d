"""A chat model for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny_lm import save_lm


@pytest.fixture(scope="session")
def make_lm(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_lm(chat=True)` writes the folder of a language model."""
    return lambda **options: save_lm(tmp_path_factory.mktemp("lm"), **options)
