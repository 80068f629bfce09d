"""What a changed prompt does to the large model's answers: the measure of amplified hallucination."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class PromptEffect:
    """Shares of the rows: `corrected` turned from wrong to right, `misled` from right to wrong.

    `off_label` answers lie outside the label list; `failed` ones never came.
    """

    num_rows: int
    corrected: float
    misled: float
    off_label: float
    failed: float


def prompt_effect(
    labels: ArrayLike, answers: ArrayLike, plain_answers: ArrayLike, failed: ArrayLike
) -> PromptEffect | None:
    """Compare answers under a changed prompt with those under the task prompt alone; None without rows.

    All [N]: `labels`, `answers` and `plain_answers` are label numbers, -1 for an answer outside the list; `failed`
    marks answers that never came, which count as wrong and not as off-label.
    """
    label_N, failed_N = np.asarray(labels), np.asarray(failed, dtype=bool)
    if len(label_N) == 0:
        return None
    right, plain_right = np.asarray(answers) == label_N, np.asarray(plain_answers) == label_N
    return PromptEffect(
        num_rows=len(label_N),
        corrected=float((right & ~plain_right).mean()),
        misled=float((~right & plain_right).mean()),
        off_label=float(((np.asarray(answers) == -1) & ~failed_N).mean()),
        failed=float(failed_N.mean()),
    )
