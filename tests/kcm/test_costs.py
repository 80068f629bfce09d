"""Prices: given by the call or by tokens, or read off the answers on record."""

import pytest
from pydantic import ValidationError

from kcm.costs import CostsConfig, Price, Prices, prices

USED = {"rows": 200, "tokens": 50_000, "currency": 0.8}


@pytest.mark.parametrize(
    ("costs", "usage", "large", "small"),
    [
        ({"large": {"per_call": 0.002}}, None, 0.002, 0.0),
        ({"large": {"per_1k_tokens": 0.01}, "small": {"per_call": 1e-4}}, USED, 0.0025, 1e-4),
        ({}, USED, 0.004, 0.0),
    ],
    ids=["by the call", "by tokens", "on record"],
)
def test_the_price_of_an_answer(costs, usage, large: float, small: float) -> None:
    found = prices(CostsConfig.model_validate(costs), usage)
    assert found is not None
    assert (found.large, found.small, found.currency) == (pytest.approx(large), pytest.approx(small), "USD")


@pytest.mark.parametrize(
    ("costs", "usage"), [({}, None), ({}, USED | {"currency": 0.0}), ({"large": {"per_1k_tokens": 1.0}}, {"rows": 200})]
)
def test_what_nobody_says_has_no_price(costs, usage) -> None:
    assert prices(CostsConfig.model_validate(costs), usage) is None


@pytest.mark.parametrize("price", [{}, {"per_call": 1.0, "per_1k_tokens": 1.0}])
def test_a_price_is_given_once(price) -> None:
    with pytest.raises(ValidationError, match="either per_call or per_1k_tokens"):
        Price.model_validate(price)


def test_savings_count_the_small_side_for_every_input() -> None:
    found = Prices(large=0.002, small=0.0005, currency="EUR")
    assert found.saved_per_1000(0.7) == pytest.approx(0.9)
    assert found.saved_per_1000(0.1) == pytest.approx(-0.3)
