"""The price of a call to the large model, and the savings of a cascade."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from kcm.config import Config


class Price(Config):
    """The price of an answer, per call or per token read or written."""

    per_call: float | None = Field(None, ge=0, description="Price of one answer.")
    per_1k_tokens: float | None = Field(None, ge=0, description="Price of 1,000 tokens, read or written.")

    @model_validator(mode="after")
    def _exactly_one_price(self) -> Price:
        if (self.per_call is None) == (self.per_1k_tokens is None):
            raise ValueError("give either per_call or per_1k_tokens")
        return self

    def of_answer(self, tokens: float | None) -> float | None:
        """The price of an answer with this many tokens; None if tokens were not counted."""
        if self.per_1k_tokens is None:
            return self.per_call
        return None if tokens is None else self.per_1k_tokens * tokens / 1000


class CostsConfig(Config):
    """The price of answers. The small side answers every input, the large model the escalated ones."""

    large: Price | None = Field(None, description="Large answers; null: their recorded cost, if any.")
    small: Price = Field(Price(per_call=0.0), description="Small answers.")
    currency: str = Field("USD", min_length=1, max_length=8, description="Currency of all amounts.")


class Prices(Config):
    """The mean price of an answer by either side, in `currency`."""

    large: float
    small: float
    currency: str

    def saved_per_1000(self, calls_saved: float) -> float:
        """Savings on 1,000 inputs against the large model alone; negative if the small side costs more."""
        return 1000 * (calls_saved * self.large - self.small)


def prices(costs: CostsConfig, usage: Mapping[str, Any] | None = None) -> Prices | None:
    """The configured prices, or the recorded ones; None if neither gives the price of an answer.

    `usage` holds totals over the large model's answers: `rows`, and `tokens` and `currency` if they were counted.
    """
    totals = usage or {}
    rows = totals.get("rows") or 0
    tokens = totals["tokens"] / rows if rows and totals.get("tokens") else None
    recorded = totals["currency"] / rows if rows and totals.get("currency") else None
    large = costs.large.of_answer(tokens) if costs.large else recorded
    small = costs.small.of_answer(tokens)
    if large is None or small is None:
        return None
    return Prices(large=large, small=small, currency=costs.currency)
