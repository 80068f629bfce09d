"""A champion goes on under the hyper-parameters that its search has chosen, and networks keep their width."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from kcm.collaborator.collaborator import NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.errors import ConfigError
from kcm.learners import LearnerConfig
from kcm.learners.replay import ReplayConfig
from kcm.learners.training.config import TrainConfig
from pipelines.loop.challenger.extend import Extend, choice_of
from pipelines.training.worker import TrainerConfig, TrainerPlan

CHOICE = {
    "learning_rate": 0.02,
    "large_weight": 3.0,
    "judge_weight": 0.25,
    "gate": "signals",
    "scope": "global",
}


def plan_of(config: TrainerConfig, num_labels: int = 2) -> TrainerPlan:
    features: Any = SimpleNamespace(dim=16, num_words=0, names=SimpleNamespace(labels=range(num_labels)))
    return TrainerPlan(config, features, features)


@dataclass(frozen=True)
class Search:
    """What the stages ask of a finished search of `name`, over two labels."""

    plan: TrainerPlan

    def choice(self, name: str) -> dict[str, Any]:
        return CHOICE

    def load(self, name: str) -> Any:
        return SimpleNamespace(collaborator=self.plan.collaborator(name))


@pytest.fixture
def extended() -> Any:
    """Stage `extend` for a champion that was trained so."""

    def of(learner: LearnerConfig, *, name: str = "kcm", mask_unseen: bool = True) -> Extend:
        config = TrainerConfig(
            collaborators=(name, "kcm"),
            network=NetworkConfig(hidden=(8,)),
            learner=learner,
            train=TrainConfig(optimizer="sgd", mask_unseen=mask_unseen),
            distill=DistillConfig(temperature=2.0),
            seed=4,
        )
        parent: Any = SimpleNamespace(collaborator=name, tuned=Search(plan_of(config)))
        assert (choice_of(parent).gate, choice_of(parent).scope) == ("signals", "global")
        return Extend.of_parent(parent)

    return of


def test_only_the_deployed_collaborator_continues(extended: Any) -> None:
    """Promise: the deployed collaborator alone goes on as its search has chosen."""
    plan = extended(ReplayConfig())
    assert plan.collaborators == ("kcm",)
    assert (plan.train.sgd_rate, plan.train.learning_rate) == (0.02, TrainConfig().learning_rate)
    assert (plan.distill.large_weight, plan.distill.judge_weight, plan.distill.temperature) == (3.0, 0.25, 2.0)
    assert (plan.seed, plan.learner) == (4, ReplayConfig())
    assert plan.network == NetworkConfig(hidden=(8,))


def test_an_mlp_keeps_the_width_that_it_had_before_labels_came(extended: Any) -> None:
    plan = extended(ReplayConfig(), name="mcm")
    before, after = (plan_of(plan, num_labels).collaborator("mcm") for num_labels in (2, 30))
    assert before.judge.widths[:-1] == after.judge.widths[:-1]
    matching = plan_of(plan.model_copy(update={"network": NetworkConfig(hidden=(8,))}))
    assert before.judge.widths == matching.collaborator("mcm").judge.widths


def test_labels_must_have_been_masked(extended: Any) -> None:
    with pytest.raises(ConfigError, match=r"train\.mask_unseen is false"):
        extended(ReplayConfig(), mask_unseen=False)
