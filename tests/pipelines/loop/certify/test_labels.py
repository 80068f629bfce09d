from __future__ import annotations

import numpy as np
import pytest

from pipelines.loop.certify.labels import LabelDraw


def test_whether_and_when_an_item_is_drawn_is_uniform_and_never_changes() -> None:
    draw, items = LabelDraw("attempt", 0.3), [f"r{i}/0" for i in range(5000)]
    rho = draw.probabilities(np.where(np.arange(5000) < 2500, 0.2, 1.0), 0.2)
    assert rho[[0, -1]] == pytest.approx([0.3, 0.06])
    drawn = draw.drawn(items, rho)
    assert abs(drawn[:2500].mean() - 0.3) < 0.04
    assert abs(drawn[2500:].mean() - 0.06) < 0.02
    assert (draw.drawn(items[::-1], rho[::-1])[::-1] == drawn).all()
    assert abs(np.corrcoef(draw.order(items), drawn)[0, 1]) < 0.05
    assert (LabelDraw("other", 0.3).drawn(items, rho) != drawn).any()
