"""The options of `kcm savings`. Without heavy imports, since the command reads them before it does anything."""

from __future__ import annotations

from pydantic import Field

from kcm.config import Config


class SavingsConfig(Config):
    """The promise, and the seed of all draws."""

    target: float = Field(0.98, gt=0, lt=1, description="Share of all answers that must agree with the LLM's.")
    delta: float = Field(0.05, gt=0, lt=1, description="Probability that the promise may be broken.")
    encoder: str = Field(
        "auto",
        description="Text encoder: a hub id or folder, words for none; auto: MiniLM if it is at hand.",
    )
    seed: int = Field(0, ge=0, description="Seed of all random choices. Another seed is another look.")

    @property
    def max_loss(self) -> float:
        """The share of all answers that may differ."""
        return round(1 - self.target, 12)
