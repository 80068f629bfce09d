"""A learner is chosen by name, and a choice that cannot work is refused with what would."""

import pytest

from kcm.config import Config, parse_config
from kcm.errors import ConfigError
from kcm.learners import LearnerConfig

NAMES = ("finetune", "joint", "replay", "der", "lwf", "ewc", "si", "analytic", "slda")


class Run(Config):
    learner: LearnerConfig


@pytest.mark.parametrize("name", NAMES)
def test_every_learner_is_built_by_its_name_alone(name) -> None:
    learner = parse_config(Run, {"learner": {"name": name}}).learner
    assert type(learner.build(seed=0)).__name__.lower() == name


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"name": "ewc", "fisher": "diagonal"}, "fisher"),
        ({"name": "ewc", "strength": -1}, "strength"),
        ({"name": "ewc", "decay": 0}, "decay"),
        ({"name": "si", "damping": 0}, "damping"),
        ({"name": "lwf", "temperature": 0}, "temperature"),
        ({"name": "der", "alpha": -0.1}, "alpha"),
        ({"name": "ewc", "memory": 10}, "memory"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_key(settings, key) -> None:
    with pytest.raises(ConfigError, match=rf"learner\.{key}"):
        parse_config(Run, {"learner": settings})
