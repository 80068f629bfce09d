"""The configuration of one run: every section is the model of the component that it configures."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from kcm.cascade.search import TuneConfig
from kcm.certify.certificate import CertificateConfig
from kcm.collaborator.collaborator import CollaboratorName, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.encoders import EncoderConfig
from kcm.large import PromptsConfig
from kcm.learners import AnalyticConfig, LearnerConfig
from kcm.learners.training.config import TrainConfig
from kcm.tasks import TasksConfig
from pipelines.served_run import ServedRun

# How a run learns that names no learner: in closed form, whose quadratic curves are the answer, forget nothing and need
# no tuning (docs/continual.md).
DEFAULT_LEARNING: dict[str, dict[str, Any]] = {
    "network": {"hidden": [], "basis": "quadratic", "mixing": 2048},
    "learner": {"name": "analytic"},
    "train": {"mask_unseen": True},
}


class RunConfig(ServedRun):
    """One run of the pipeline, from rows to a registered bundle."""

    seed: int = Field(0, ge=0, description="Seed of splits, orders, initial weights and search.")
    collaborators: Literal["auto"] | tuple[CollaboratorName, ...] = Field(
        "auto",
        description="What is trained; auto: both, and that one is deployed of which a certificate should leave most,"
        " by validate rows; of a list the first one is deployed, the other is its control.",
    )
    tasks: TasksConfig
    encoder: EncoderConfig
    network: NetworkConfig = NetworkConfig()
    learner: LearnerConfig = Field(
        AnalyticConfig(),
        description="Named none, `analytic`, with `network` and `train` to suit it where these are not set: see"
        " docs/continual.md.",
    )
    train: TrainConfig = TrainConfig()
    distill: DistillConfig = DistillConfig()
    tune: TuneConfig = TuneConfig()
    prompts: PromptsConfig = PromptsConfig()
    certificate: CertificateConfig = CertificateConfig()

    @model_validator(mode="before")
    @classmethod
    def _by_default(cls, values: Any) -> Any:
        """Without a named learner the three sections that decide how is learned are of one piece."""
        if not isinstance(values, dict):
            return values
        given = {section: values.get(section) or {} for section in DEFAULT_LEARNING}
        if not all(isinstance(section, dict) for section in given.values()) or "name" in given["learner"]:
            return values
        return values | {section: DEFAULT_LEARNING[section] | given[section] for section in given}

    @field_validator("collaborators")
    @classmethod
    def _distinct(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value or (value != "auto" and len(set(value)) != len(value)):
            raise ValueError("name at least one collaborator, each once, or auto")
        return value

    @property
    def trained(self) -> tuple[CollaboratorName, ...]:
        """The collaborators that are trained."""
        return get_args(CollaboratorName) if self.collaborators == "auto" else self.collaborators

    @model_validator(mode="after")
    def _learnable(self) -> RunConfig:
        self.learner.check_network(self.network)
        return self

    @model_validator(mode="after")
    def _updatable(self) -> RunConfig:
        if self.update is None:
            return self
        if not self.train.mask_unseen:
            raise ValueError(
                "update: needs train.mask_unseen: true, since labels of later tasks are not known before they come"
            )
        if self.serve.feedback.store_payloads == "none":
            raise ValueError(
                "update: learns from the inputs of its traffic: choose serve.feedback.store_payloads: text or all"
            )
        if self.certificate.every_task:
            raise ValueError(
                "update: a window of traffic holds too few requests of some tasks to be certified within every one:"
                " set certificate.every_task: false, or tune.scopes: [per_task] for a promise of each task"
            )
        return self
