"""The choice of a learner in a configuration: `name` tells which."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kcm.learners.analytic import AnalyticConfig
from kcm.learners.der import DerConfig
from kcm.learners.ewc import EwcConfig
from kcm.learners.finetune import FinetuneConfig
from kcm.learners.joint import JointConfig
from kcm.learners.lwf import LwfConfig
from kcm.learners.replay import ReplayConfig
from kcm.learners.si import SiConfig

LearnerConfig = Annotated[
    FinetuneConfig | JointConfig | ReplayConfig | DerConfig | LwfConfig | EwcConfig | SiConfig | AnalyticConfig,
    Field(discriminator="name"),
]
