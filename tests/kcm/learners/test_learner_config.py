"""A learner is chosen by name, and a choice that cannot work is refused with what would."""

import pytest

from kcm.config import Config, parse_config
from kcm.learners import LearnerConfig

NAMES = ("finetune", "joint", "replay", "analytic", "slda")


class Run(Config):
    learner: LearnerConfig


@pytest.mark.parametrize("name", NAMES)
def test_every_learner_is_built_by_its_name_alone(name) -> None:
    learner = parse_config(Run, {"learner": {"name": name}}).learner
    assert type(learner.build(seed=0)).__name__.lower() == name
