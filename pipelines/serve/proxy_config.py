"""Serving in place of an LLM's address: the cascade answers one prompt template, the LLM everything else."""

from __future__ import annotations

from pydantic import Field, model_validator

from kcm.large import UpstreamConfig
from kcm.large.config import BudgetConfig, ServerUrl
from kcm.logs.template import Template


class ProxyConfig(BudgetConfig):
    """The server of an LLM whose clients call this service instead, and its budget.

    With max_cost, a model without a price is refused.
    """

    upstream: ServerUrl = Field(description="Base URL of a server with OpenAI's interface, without /chat/completions.")
    template: Template = Field(description="The requests that the cascade answers; all others pass through.")
    idle_timeout_s: float = Field(default=120.0, gt=0, description="Time without a byte after which a call fails.")
    timeout_s: float = Field(default=600.0, gt=0, description="Time limit of a call, its stream included.")

    @model_validator(mode="after")
    def _prices_for_a_budget(self) -> ProxyConfig:
        if self.max_cost is not None and not self.prices:
            raise ValueError("max_cost needs prices: the price per million tokens read and written, by model")
        return self

    @property
    def server(self) -> UpstreamConfig:
        """The upstream as an allowed server of the large model: one key, one price list, one budget."""
        return UpstreamConfig(
            base_url=self.upstream,
            api_key_env=self.api_key_env,
            prices=self.prices,
            max_calls=self.max_calls,
            max_cost=self.max_cost,
        )
