"""scikit-learn's digits as five tasks of two classes: real, small and quick."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from kcm.learners.base import Batch
from kcm.learners.stream import TensorRows


@pytest.fixture(scope="session")
def digits() -> list[TensorRows]:
    features, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    features, labels = features[order].float(), labels[order]

    def split(rows: torch.Tensor) -> tuple[list[str], Batch]:
        nothing = torch.full((len(rows), 10), torch.nan)
        return [f"digit-{row}" for row in rows.tolist()], Batch(
            features[rows], labels[rows], nothing, torch.ones(len(rows))
        )

    tasks = []
    for task in range(5):
        rows = (labels // 2 == task).nonzero()[:, 0]
        cut = len(rows) * 3 // 4
        tasks.append(TensorRows(f"digits-{task}", {"train": split(rows[:cut]), "test": split(rows[cut:])}))
    return tasks
