"""Whether the mix of labels changes within a log, and how far the share of kept calls varies over its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

LEVEL = 0.01  # of the test
_NUM_PERMUTATIONS = 2_000
_NUM_BLOCKS = 10


@dataclass(frozen=True)
class LabelDrift:
    """The label whose share changed the most between the first and the second half of the rows."""

    p_value: float
    label: str
    early: float
    late: float

    @property
    def detected(self) -> bool:
        """Whether chance explains the change in less than one log of a hundred."""
        return self.p_value < LEVEL


def label_drift(labels: Sequence[str], seed: int) -> LabelDrift:
    """Test whether both halves of labels in the order of time have the same mix.

    The statistic is Pearson's chi-squared of the two halves; its distribution comes from permutations of the rows,
    which keep the number of rows with each label. At least two rows.
    """
    names, code_N = np.unique(np.asarray(labels, dtype=object).astype(str), return_inverse=True)
    half = len(code_N) // 2
    total_C = np.bincount(code_N, minlength=len(names))
    early_C = np.bincount(code_N[:half], minlength=len(names))
    drawn_PC = np.random.default_rng(seed).multivariate_hypergeometric(total_C, half, size=_NUM_PERMUTATIONS)
    expected_C = total_C * half / len(code_N)
    extreme = (_statistic(drawn_PC, expected_C) >= _statistic(early_C[None], expected_C)[0] - 1e-9).sum()
    share_early_C, share_late_C = early_C / half, (total_C - early_C) / (len(code_N) - half)
    most = int(np.abs(share_late_C - share_early_C).argmax())
    p_value = float((1 + extreme) / (1 + _NUM_PERMUTATIONS))
    return LabelDrift(p_value, str(names[most]), float(share_early_C[most]), float(share_late_C[most]))


def _statistic(count_PC: NDArray[np.int64], expected_C: NDArray[np.float64]) -> NDArray[np.float64]:
    """Proportional to chi-squared, since both halves deviate from what is expected by the same count."""
    return np.asarray(((count_PC - expected_C) ** 2 / expected_C).sum(1))


def share_interval(kept_N: NDArray[np.bool_]) -> tuple[float, float]:
    """A 95% interval for the share of kept rows in a long time to come, from rows in the order of time.

    The variance has two parts: that of a draw of N rows, and how much more than such draws the shares of ten blocks of
    time differ, which a further block has once more. Its quantile is Student's with nine degrees of freedom.
    """
    share, num_rows = float(kept_N.mean()), len(kept_N)
    blocks = np.array([block.mean() for block in np.array_split(kept_N, _NUM_BLOCKS) if len(block)])
    drawn = max(share * (1 - share), 1 / num_rows)
    between = max(0.0, float(blocks.var(ddof=1)) - drawn * len(blocks) / num_rows) if len(blocks) > 1 else 0.0
    width = float(student.ppf(0.975, max(1, len(blocks) - 1)))
    width *= (drawn / num_rows + between * (1 + 1 / len(blocks))) ** 0.5
    return max(0.0, share - width), min(1.0, share + width)
