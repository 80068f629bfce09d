"""What is served in place of an LLM's address: one prompt template by the cascade, everything else by the LLM."""

from __future__ import annotations

from pydantic import Field, model_validator

from kcm.config import Config
from kcm.large import UpstreamConfig
from kcm.large.config import Price, ServerUrl
from kcm.logs.template import Template
from kcm.redact import VariableName


class ProxyConfig(Config):
    """The server of an LLM, whose clients call this service instead, and what may be spent there."""

    upstream: ServerUrl = Field(description="Address of a server with OpenAI's interface, up to before /chat.")
    api_key_env: VariableName | None = Field(
        default="OPENAI_API_KEY",
        description="Environment variable with your key, which goes to the upstream; null: the server needs none.",
    )
    template: Template = Field(description="The requests that the cascade answers; all others pass through.")
    prices: dict[str, tuple[Price, Price]] = Field(
        default_factory=dict,
        description="Currency per million tokens read and written, by model, which also holds for its dated versions; "
        "with max_cost a model without a price is refused.",
    )
    max_calls: int | None = Field(
        default=None, ge=0, description="Calls that may be paid for, the large model's included; null: no limit."
    )
    max_cost: float | None = Field(
        default=None, ge=0, description="Currency that may be spent, by the large model too; null: no limit."
    )
    max_output_tokens: int = Field(
        default=16_384,
        ge=1,
        description="Tokens that a call is booked at until its reply, if it asks for no limit. A stream without usage "
        "(stream_options.include_usage) stays booked so.",
    )
    max_open: int = Field(
        default=128, ge=1, description="Calls that a replica has open at the upstream, streams among them; else 429."
    )
    max_reply_bytes: int = Field(default=64 * 2**20, ge=1, description="Bytes of a reply, of a stream too.")
    connect_timeout_s: float = Field(default=5.0, gt=0, description="Time until the upstream takes a connection.")
    idle_timeout_s: float = Field(
        default=120.0, gt=0, description="Time without a byte after which the upstream is given up."
    )
    timeout_s: float = Field(default=600.0, gt=0, description="Time that a call may take, its stream included.")

    @model_validator(mode="after")
    def _prices_for_a_budget(self) -> ProxyConfig:
        if self.max_cost is not None and not self.prices:
            raise ValueError("max_cost needs prices: currency per million tokens read and written, by model")
        return self

    @property
    def server(self) -> UpstreamConfig:
        """The upstream as a server that the large model may be asked at: one key, one list of prices, one budget."""
        return UpstreamConfig(
            base_url=self.upstream,
            api_key_env=self.api_key_env,
            prices=self.prices,
            account=self.upstream,
            max_calls=self.max_calls,
            max_cost=self.max_cost,
        )
