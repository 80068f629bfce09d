"""The limits that a version must keep to become the champion."""

from __future__ import annotations

from pydantic import Field

from kcm.config import Config


class GateConfig(Config):
    """The limits of the promotion gates; the certificate's own stand in section `certificate`."""

    max_old_task_loss: float = Field(
        0.01, gt=0, lt=1, description="Accuracy that no old task may lose against the champion, by its interval."
    )
    max_cost: float = Field(1.05, gt=0, description="Cost of an answer, times the champion's, on the window.")
    max_latency: float = Field(1.5, gt=0, description="Time of the small side for an item, times the champion's.")
    panel_size: int = Field(
        32, ge=0, description="Inputs that the large model is asked again, to notice another model behind its name."
    )
