"""A head that is fitted on streamed rows is the one that scikit-learn fits on the same rows in memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from kcm.large.head import LinearHead
from kcm.large.streamed_head import LabelledRows, fit_streamed

NUM_ROWS, DIM, FOLDS = 400, 5, 3


@pytest.mark.parametrize("labels", [(0, 1), (0, 1, 3)])
@pytest.mark.parametrize("size", [64, 1000])
def test_every_head_is_that_of_its_rows_in_memory(labels: tuple[int, ...], size: int) -> None:
    rng = np.random.default_rng(0)
    features_ND = rng.normal(size=(NUM_ROWS, DIM)).astype(np.float32)
    label_N = np.array(labels)[(features_ND @ rng.normal(size=(DIM, len(labels))) + rng.normal(size=3)[0]).argmax(1)]
    fold_N = rng.integers(0, FOLDS, NUM_ROWS)

    def rows() -> Iterator[LabelledRows]:
        for start in range(0, NUM_ROWS, size):
            mine = slice(start, start + size)
            yield LabelledRows(features_ND[mine], label_N[mine], fold_N[mine])

    start = LinearHead(rng.normal(size=(4, DIM)).astype(np.float32), np.zeros(4, dtype=np.float32))
    found = fit_streamed(rows, start, 0.5, FOLDS)
    for fold, head in enumerate([*found.left_out, found.head]):
        mine = fold_N != fold
        wide_ND = features_ND.astype(np.float64)
        oracle = LogisticRegression(C=0.5, tol=1e-8, max_iter=10_000).fit(wide_ND[mine], label_N[mine])
        probabilities_NC = head.probabilities(features_ND)
        np.testing.assert_allclose(probabilities_NC[:, labels], oracle.predict_proba(wide_ND), atol=1e-4)
        assert not probabilities_NC[:, [label for label in range(4) if label not in labels]].any()
    chosen = found.out_of_fold(features_ND, fold_N)
    np.testing.assert_array_equal(chosen[fold_N == 1], found.left_out[1].probabilities(features_ND[fold_N == 1]))
