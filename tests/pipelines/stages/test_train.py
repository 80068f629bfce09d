"""A parent's collaborators learn on with the settings that its search has chosen, and networks keep their width."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from kcm.collaborator.collaborator import NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.config import Config
from kcm.errors import ConfigError
from kcm.learners import LearnerConfig
from kcm.learners.replay import ReplayConfig
from kcm.learners.training.config import TrainConfig
from pipelines.stages.train import Train
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
def continued() -> Any:
    """Stage `train` for a parent that was trained so."""

    def of(learner: LearnerConfig, *, name: str = "kcm", mask_unseen: bool = True, only: str | None = None) -> Train:
        config = TrainerConfig(
            collaborators=tuple(dict.fromkeys((name, "kcm", "mcm"))),
            network=NetworkConfig(hidden=(8,)),
            learner=learner,
            train=TrainConfig(optimizer="sgd", mask_unseen=mask_unseen),
            distill=DistillConfig(temperature=2.0),
            seed=4,
        )
        parent: Any = SimpleNamespace(collaborator=name, tuned=Search(plan_of(config)))
        return Train.of(Config(), parent=parent, only=only)

    return of


def test_collaborators_continue_with_what_the_search_chose(continued: Any) -> None:
    """Promise: each collaborator learns on with the rate and the weights that its own search has chosen."""
    plan = continued(ReplayConfig())
    assert plan.collaborators == ("kcm", "mcm")
    train, distill = plan.settings_of("mcm")
    assert (train.sgd_rate, train.learning_rate) == (0.02, TrainConfig().learning_rate)
    assert (distill.large_weight, distill.judge_weight, distill.temperature) == (3.0, 0.25, 2.0)
    assert (plan.seed, plan.learner) == (4, ReplayConfig())
    assert continued(ReplayConfig(), only="kcm").collaborators == ("kcm",)


def test_an_mlp_keeps_the_width_that_it_had_before_labels_came(continued: Any) -> None:
    plan = continued(ReplayConfig(), name="mcm")
    before, after = (plan_of(plan, num_labels).collaborator("mcm") for num_labels in (2, 30))
    assert before.judge.widths[:-1] == after.judge.widths[:-1]
    matching = plan_of(plan.model_copy(update={"network": NetworkConfig(hidden=(8,))}))
    assert before.judge.widths == matching.collaborator("mcm").judge.widths


def test_labels_must_have_been_masked(continued: Any) -> None:
    with pytest.raises(ConfigError, match=r"train\.mask_unseen is false"):
        continued(ReplayConfig(), mask_unseen=False)
