"""Metrics of continual learning, from the accuracy on every task after every task.

`R` [T, T] holds in R[i, j] the accuracy on task j after learning task i; entries above the diagonal (tasks not learned
yet) may be NaN. `b` [T] is the accuracy at initialisation. A metric that is not defined is None.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcm.errors import DataError


def average_accuracy(R: ArrayLike) -> float:
    """mean_j R[T, j], after the last task (Lopez-Paz and Ranzato, arXiv 1706.08840, ACC)."""
    return float(_accuracies(R)[-1].mean())


def average_incremental_accuracy(R: ArrayLike) -> float:
    """mean_i mean_{j<=i} R[i, j] (Rebuffi et al., iCaRL, arXiv 1611.07725)."""
    matrix = _accuracies(R)
    return float(np.mean([matrix[i, : i + 1].mean() for i in range(len(matrix))]))


def learning_accuracy(R: ArrayLike) -> float:
    """mean_j R[j, j]: the accuracy on every task right after learning it (Riemer et al., arXiv 1810.11910)."""
    return float(np.diag(_accuracies(R)).mean())


def forgetting_first(R: ArrayLike) -> float | None:
    """mean_{j<T} (R[j, j] - R[T, j]): the loss since each task was learned; None for a single task."""
    matrix = _accuracies(R)
    return float((np.diag(matrix) - matrix[-1])[:-1].mean()) if len(matrix) > 1 else None


def forgetting_max(R: ArrayLike) -> float | None:
    """mean_{j<T} (max_{j<=l<T} R[l, j] - R[T, j]) (Chaudhry et al., arXiv 1801.10112); None for a single task."""
    matrix = _accuracies(R)
    last = len(matrix) - 1
    drops = [matrix[j:last, j].max() - matrix[last, j] for j in range(last)]
    return float(np.mean(drops)) if drops else None


def bwt(R: ArrayLike) -> float | None:
    """Backward transfer, minus `forgetting_first` (arXiv 1706.08840); None for a single task."""
    forgetting = forgetting_first(R)
    return None if forgetting is None else -forgetting


def fwt(R: ArrayLike, b: ArrayLike | None) -> float | None:
    """Forward transfer, mean_{j>=2} (R[j-1, j] - b_j) (arXiv 1706.08840).

    None for a single task, without `b`, or if tasks were not evaluated before they were learned. (Under seen-class
    masking there is nothing to evaluate.)
    """
    matrix = np.asarray(R, dtype=np.float64)
    _accuracies(R)
    before = np.diag(matrix, 1)
    if b is None or len(before) == 0 or np.isnan(before).any():
        return None
    initial = np.asarray(b, dtype=np.float64)
    if initial.shape != (len(matrix),):
        raise DataError(f"b has shape {initial.shape}, expected ({len(matrix)},)", where="fwt")
    transfer = float((before - initial[1:]).mean())
    return None if np.isnan(transfer) else transfer


def summarise(R: ArrayLike, b: ArrayLike | None = None) -> dict[str, float | None]:
    """All metrics of one run by name. Raises DataError when R is not square or lacks accuracies of learned tasks."""
    return {
        "average_accuracy": average_accuracy(R),
        "average_incremental_accuracy": average_incremental_accuracy(R),
        "learning_accuracy": learning_accuracy(R),
        "forgetting_first": forgetting_first(R),
        "forgetting_max": forgetting_max(R),
        "bwt": bwt(R),
        "fwt": fwt(R, b),
    }


def _accuracies(R: ArrayLike) -> NDArray[np.float64]:
    """R as float64 [T, T], with an accuracy for every learned task."""
    matrix = np.asarray(R, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) == 0:
        raise DataError(f"the R matrix must be square, got shape {matrix.shape}", where="R")
    cells = np.argwhere(np.isnan(np.tril(matrix)))
    if len(cells):
        raise DataError(f"no accuracy on learned tasks: R{cells[0].tolist()} is NaN", where="R")
    return matrix
