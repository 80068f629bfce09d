"""The traffic that a first certificate took is as planned, where the two sides agree as expected."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.loop_earliest import STEP, earliest
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.certify.certificate import CertificateConfig
from kcm.certify.traffic import decisions_needed
from tests.pipelines.loop.windows import facts_of, judged_of, made_window

EVERY = 4  # one decision in so many is of a validate unit, the others certify


def found(num: int, rate: float, share: float) -> int | None:
    window = made_window(num, rate=rate, share=share)
    purpose = ["validate" if place % EVERY == 0 else "certify" for place in range(num)]
    judged = judged_of(window.append_column("purpose", pa.array(purpose)), np.random.default_rng(1).random(num))
    facts = facts_of(window, share_floor=share)
    return earliest(judged, Policy(decision=KEEP_ALL), CertificateConfig(), facts, delta=0.06)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_where_nothing_disagrees_it_takes_what_was_planned(share: float) -> None:
    planned = decisions_needed(0.0, share, CertificateConfig().epsilon, 0.06)
    assert planned is not None
    took = found(2000, 0.0, share)
    assert took is not None
    assert 1.0 <= took / (planned * EVERY / (EVERY - 1)) <= 1.5
    assert took % STEP == 0


def test_disagreement_costs_what_is_kept_and_not_time_and_too_little_traffic_is_told() -> None:
    """A stricter threshold, which leaves the disputed items to the large model, is certified as early."""
    assert found(2000, 0.03, 0.8) == found(2000, 0.0, 0.8)
    assert found(100, 0.0, 0.2) is None
