"""Tables of logged answers whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

LABELS = np.array(["cat", "dog", "bird, or none"])
Make = Callable[..., Path]


def answers(num_rows: int, *, large: float = 0.9, useful: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Rows of a small model that is right as often as its confidence says, the more so the more `useful` it is."""
    rng = np.random.default_rng(seed)
    confidence, label = rng.beta(3, 1, num_rows), rng.integers(0, 3, num_rows)
    right = rng.random(num_rows) < useful * confidence + (1 - useful) * 0.75
    large_right = rng.random(num_rows) < large
    return pd.DataFrame(
        {
            "confidence": confidence,
            "small": LABELS[np.where(right, label, (label + 1) % 3)],
            "large": LABELS[np.where(large_right, label, (label + 2) % 3)],
            "label": LABELS[label],
        }
    )


@pytest.fixture
def table_file(tmp_path: Path) -> Make:
    """Writes columns to a CSV file and gives its path."""

    def make(**columns: object) -> Path:
        path = tmp_path / "table.csv"
        pd.DataFrame(columns).to_csv(path, index=False)
        return path

    return make
