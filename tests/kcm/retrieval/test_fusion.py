"""The weight of the small model's scores is the one that the queries were made with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from kcm.retrieval.fusion import fit_weight
from kcm.retrieval.gallery import Gallery


@pytest.fixture
def gallery_of() -> Callable[[float], Gallery]:
    def made(weight: float) -> Gallery:
        """Queries whose right item is drawn by the softmax of 2 large + 2 weight small: a Gumbel race."""
        rng = np.random.default_rng(0)
        small, large = rng.standard_normal((2, 4000, 8))
        first = (2 * large + 2 * weight * small + rng.gumbel(size=(4000, 8))).argmax(1)
        names = np.array([f"q{number}" for number in range(4000)], dtype=object)
        return Gallery(
            small=small,
            judge=small,
            large=large,
            relevant=np.arange(8) == first[:, None],
            ids=names,
            group=names,
            task="t",
            split="validate",
            way="image to text",
        )

    return made


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.5])
def test_the_weight_is_found_again(gallery_of: Callable[[float], Gallery], weight: float) -> None:
    # Scores are standardised within the query, which blurs the weight a little.
    assert fit_weight([gallery_of(weight)], 8) == pytest.approx(weight, abs=0.06 + 0.05 * weight)


def test_a_small_model_that_misleads_is_not_listened_to(gallery_of: Callable[[float], Gallery]) -> None:
    assert fit_weight([gallery_of(-1.0)], 8) == 0.0


def test_queries_whose_right_item_is_not_shown_tell_nothing(gallery_of: Callable[[float], Gallery]) -> None:
    gallery = gallery_of(0.3)
    hidden = Gallery(**vars(gallery) | {"relevant": np.arange(8) == gallery.small.argmin(1)[:, None]})
    assert fit_weight([hidden], 3) == 0.0
    assert fit_weight([gallery, hidden], 3) == pytest.approx(fit_weight([gallery], 3))
