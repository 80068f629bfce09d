"""Configuration of a labelling job: its promise and its limits.

The import is light, since commands make options of this model.
"""

from __future__ import annotations

from pydantic import Field

from kcm.config import Config

DEFAULT_TARGET = 0.95


class LabelConfig(Config):
    """The promise of a labelling job, and its limits."""

    target: float | None = Field(
        None, gt=0, lt=1, description="Share of labels that must agree with the LLM's; .95 without guarantees."
    )
    delta: float = Field(0.05, gt=0, lt=1, description="Probability that the promise may be broken.")
    max_cost: float | None = Field(None, gt=0, description="Currency that this job may spend.")
    encoder: str = Field(
        "auto",
        description="Text encoder: a hub id or folder, or words; auto: MiniLM, or words if it cannot be had.",
    )
    seed: int = Field(0, ge=0, description="Seed of all random choices. Another seed is another look.")
