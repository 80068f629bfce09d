"""How a served cascade is updated from its own traffic."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from kcm.config import Config
from kcm.tasks.splits import Fractions
from pipelines.registry.gates import GateConfig

AUDIT_SHARE = 0.05  # the default of a run with a section `update`


class UpdateConfig(Config):
    """The rules of `kcm update`: when it starts an attempt, what a challenger must prove, who promotes it.

    Nothing here changes what a run trains. Only `first_threshold` changes what it deploys.
    """

    approval: Literal["auto", "manual"] = Field(
        "auto",
        description="Who promotes what passes all promotion gates: the update, or a person by `kcm promote --approve`.",
    )
    first_threshold: float | None = Field(
        None,
        allow_inf_nan=False,
        description="Gate score above which the first champion keeps an input, without a certificate, until "
        "traffic certifies a successor. Set by `kcm label`, whose bought rows are no random sample. Needs "
        "tasks.fractions.certify: 0 and tune.gates: [confidence]. null: certify rows certify the first "
        "champion.",
    )
    min_large_answers: int = Field(
        200, ge=1, description="Least number of the large model's answers in a window from which an attempt learns."
    )
    every_s: float = Field(
        3600.0,
        gt=0,
        description="Time between attempts of `kcm update --watch`; an alarm or new classes start one immediately.",
    )
    fractions: Fractions = Field(
        {"train": 0.4, "validate": 0.15, "certify": 0.3, "test": 0.15},
        description="Shares of a window's units that train, choose the policy, certify it, and measure it.",
    )
    expires_days: float = Field(30.0, gt=0, description="Days after which a certificate on traffic expires.")
    gates: GateConfig = Field(GateConfig(), description="The limits of the promotion gates.")

    @field_validator("fractions")
    @classmethod
    def _measured(cls, value: Fractions) -> Fractions:
        if not value["test"] or not value["certify"]:
            raise ValueError("certify and test must be positive: a turn is certified and measured on such rows")
        return value
