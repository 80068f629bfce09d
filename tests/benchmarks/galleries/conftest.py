"""Galleries of two models, made of numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.galleries.gallery import Gallery


def made(small: object, large: object, relevant: object, **parts: object) -> Gallery:
    small = np.asarray(small, dtype=np.float64)
    names = np.array([f"q{number}" for number in range(len(small))], dtype=object)
    fields = {"judge": small, "task": "t", "split": "test", "way": "image to text", "group": names} | parts
    return Gallery(
        small=small, large=np.asarray(large, float), relevant=np.asarray(relevant, bool), ids=names, **fields
    )


def drawn(split: str, seed: int, num: int = 60, small: float = 1.5, large: float = 3.0) -> Gallery:
    """Queries with one right item each; both models score it higher, the large one by more."""
    rng = np.random.default_rng(seed)
    right = np.eye(num, dtype=bool)
    scores = (right * strength + rng.normal(size=(num, num)) for strength in (small, large))
    return made(*scores, right, split=split, group=np.array([f"{split}{n // 2}" for n in range(num)], dtype=object))


@pytest.fixture(scope="session")
def gallery() -> Callable[..., Gallery]:
    """`gallery(small, large, relevant)` is one of these scores, [Q, G] each."""
    return made


@pytest.fixture(scope="module")
def galleries() -> list[Gallery]:
    """60 queries of each split that is asked after training."""
    return [drawn(split, seed) for seed, split in enumerate(("validate", "certify", "test"))]
