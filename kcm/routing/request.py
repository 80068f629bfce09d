"""What a person asks a certificate to promise; light to import, since commands make their options of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kcm.config import Config

Scope = Literal["global", "every_task", "per_task"]


class RequestConfig(Config):
    """The promise, what the searched threshold may lose on validate, and whose threshold it is."""

    epsilon: float = Field(0.02, gt=0, lt=1, description="Accuracy that may be lost against the large model alone.")
    delta: float = Field(
        0.1, gt=0, lt=1, description="Probability, over the draw of the certify rows, that the promise breaks."
    )
    mode: Literal["auto", "regret", "net"] = Field(
        "auto",
        description="regret never credits a win of the small model; net does; auto: what keeps more on validate.",
    )
    scope: Scope = Field(
        "global",
        description="One threshold; one that holds within every --task; or one for each, at a share of delta.",
    )
    max_loss: float | None = Field(
        None, ge=0, lt=1, description="Loss that the threshold may have on validate; default: epsilon."
    )
    max_call_rate: float | None = Field(
        None, gt=0, lt=1, description="Promise this call rate as well; each promise takes delta/2."
    )
    seed: int = Field(0, ge=0, description="Draws splits where the table names none, and the order of the bets.")

    @property
    def searched_loss(self) -> float:
        """What the searched threshold may lose on validate."""
        return self.epsilon if self.max_loss is None else self.max_loss
