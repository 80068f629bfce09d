"""The learners of examples/learners are components of a user: each is one file, named as package.module:Class."""

from typing import Any

import pytest

from kcm.config import Config, parse_config
from kcm.learners import LearnerConfig
from tests.kcm.learners.conftest import digits, make_trainer

__all__ = ["digits", "make_trainer"]  # fixtures

LEARNERS: dict[str, dict[str, Any]] = {
    "der:DerConfig": {"memory": 40, "batch_size": 17},
    "ewc:EwcConfig": {"fisher": "empirical", "online": True},
    "lwf:LwfConfig": {"memory": 40},
    "si:SiConfig": {},
}


class Run(Config):
    learner: LearnerConfig


@pytest.mark.parametrize("tag", LEARNERS)
def test_an_example_learner_is_named_and_resumes_exactly(make_trainer: Any, digits: Any, tag: str) -> None:
    """Promise: a learner outside of this package has all the hooks it needs, and its state is its whole memory."""
    values = {"name": f"examples.learners.{tag}", **LEARNERS[tag]}
    config = parse_config(Run, {"learner": values}).learner
    assert config.model_dump(mode="json")["name"] == f"examples.learners.{tag}"
    straight, killed, resumed = (make_trainer(digits[:2], config, epochs=1) for _ in range(3))
    straight.run()
    while killed.position.task == 0:
        killed.step()
    killed.step()
    resumed.load_state_dict(killed.state_dict())
    resumed.run()
    assert resumed.accuracy == straight.accuracy
    assert resumed.learner.state_dict().keys() == straight.learner.state_dict().keys()
