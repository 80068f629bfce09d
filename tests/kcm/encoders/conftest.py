"""Models that are made on the spot."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny_bert import save_bert

WORDS = ("a", "good", "bad", "film", "book", "very", ".")


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_model(seed)` writes a model folder and gives its path."""

    def make(seed: int = 0) -> Path:
        return save_bert(tmp_path_factory.mktemp("model"), WORDS, seed=seed)

    return make


@pytest.fixture(scope="session")
def model_folder(make_model: Callable[..., Path]) -> Path:
    """One model for all tests that only read it."""
    return make_model(0)
