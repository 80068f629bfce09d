"""Inputs like the certify rows exceed the limit no more often than it says; the next unknown class escalates."""

import numpy as np
import pytest

from kcm.certification.monitoring.novelty import NoveltyReference
from kcm.errors import DataError


def test_rate_of_far_inputs_is_bounded_by_known_distances() -> None:
    broken = 0
    for seed in range(100):
        reference = NoveltyReference.fit(np.random.default_rng(seed).exponential(size=300), 2.5)
        broken += reference.limit < np.exp(-reference.threshold)
    assert broken <= 4
    assert reference.limit < 0.2


def test_next_unknown_class_escalates_like_earlier_ones() -> None:
    """Promise: unknown classes close together do not put the next one, slightly nearer, below the distance to escalate.

    No certify row escalates for it, and a distance among the certify rows stays as it is.
    """
    distances = np.linspace(1, 8, 300)
    unknown = NoveltyReference.fit(distances, 176.7).farthest
    assert unknown is not None
    assert distances.max() < unknown < 174.4
    assert [NoveltyReference.fit(distances, given).farthest for given in (2.5, None)] == [2.5, None]


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(DataError, match="99 rows"):
        NoveltyReference.fit(np.ones(99), None)
