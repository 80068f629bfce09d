"""The choice of a learner in a configuration: `name` tells which."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kcm.learners.finetune import FinetuneConfig
from kcm.learners.joint import JointConfig
from kcm.learners.replay import ReplayConfig

LearnerConfig = Annotated[
    FinetuneConfig | JointConfig | ReplayConfig,
    Field(discriminator="name"),
]
