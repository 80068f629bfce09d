"""Small outcome tables and scored rows to test on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from kcm.cascade.outcome_rows import OutcomeTable, ScoredOutcomes


@pytest.fixture
def columns() -> dict[str, Any]:
    """Columns of four items over three labels; item c failed."""
    names = {
        "id": ["a", "b", "c", "d"],
        "task": ["one", "one", "two", "two"],
        "split": ["validate", "certify", "test", "validate"],
        "group": [None] * 4,
    }
    values = {
        "label": [0, 1, 2, 1],
        "judge_logits": [[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.5, 0.2], [1.0, 0.0, -1.0]],
        "small_logits": [[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 0.5, 0.7], [1.0, 0.0, -np.inf]],
        "large_label": [0, 1, -1, 0],
        "large_probabilities": [[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [np.nan] * 3, [0.6, 0.4, 0.0]],
        "large_cost": [1.0, 2.0, 0.5, 1.0],
        "large_error": [False, False, True, False],
    }
    columns = {name: np.array(column, dtype=object) for name, column in names.items()}
    return (
        columns
        | {name: np.array(column) for name, column in values.items()}
        | {"label_names": ("red", "green", "blue")}
    )


@pytest.fixture
def table(columns: dict[str, Any]) -> OutcomeTable:
    return OutcomeTable(**columns)


@pytest.fixture
def draw() -> Callable[..., ScoredOutcomes]:
    """Rows whose gate score foretells whether the small model is right, `skill` times as steeply as a logit."""

    def of(
        num_rows: int, seed: int = 0, *, skill: float = 1.5, ease: float = 1.8, large: float = 0.9, **columns: Any
    ) -> ScoredOutcomes:
        rng = np.random.default_rng(seed)
        score = rng.normal(size=num_rows)
        return ScoredOutcomes(
            score=score,
            small_correct=rng.random(num_rows) < expit(ease + skill * score),
            large_correct=rng.random(num_rows) < large,
            **columns,
        )

    return of
