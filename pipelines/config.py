"""The configuration of one run: every section is the model of the component that it configures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from kcm.cascade.search import TuneConfig
from kcm.certify.certificate import CertificateConfig
from kcm.collaborator.collaborator import CollaboratorName, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.config import Config
from kcm.encoders import EncoderConfig
from kcm.large import PromptsConfig
from kcm.learners import AnalyticConfig, LearnerConfig
from kcm.learners.training.config import TrainConfig
from kcm.tasks import TasksConfig
from kcm.tasks.plan.splits import LEFT_OUT_FRACTIONS
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
        description="What is trained; auto: all, and that one is deployed of which a certificate should leave most, by"
        " rows that choose it; of a list the first one is deployed, the others are its controls, as `linear`, logistic"
        " regression on the same features, is in every run.",
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
        if all(isinstance(section, dict) for section in given.values()) and "name" not in given["learner"]:
            values = values | {section: DEFAULT_LEARNING[section] | given[section] for section in given}
        tasks = values.get("tasks")
        if not isinstance(tasks, dict) or "fractions" in tasks or not _are_sections(values) or _needs_validate(values):
            return values
        return values | {"tasks": tasks | {"fractions": LEFT_OUT_FRACTIONS}}

    @field_validator("collaborators")
    @classmethod
    def _distinct(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not value or (value != "auto" and len(set(value)) != len(value)):
            raise ValueError("name at least one collaborator, each once, or auto")
        return value

    @property
    def trained(self) -> tuple[CollaboratorName, ...]:
        """The collaborators that are trained: logistic regression is in every run, deployed or a control.

        Unless the large model is asked under hints, which are each collaborator's own: nobody pays for a control's.
        """
        if self.collaborators == "auto":
            return get_args(CollaboratorName)
        if self.tune.prompt_modes != ("none",):
            return self.collaborators
        return tuple(dict.fromkeys((*self.collaborators, "linear")))

    @model_validator(mode="after")
    def _learnable(self) -> RunConfig:
        self.learner.check_network(self.network)
        return self

    @model_validator(mode="after")
    def _chosen(self) -> RunConfig:
        """Without validate rows, train rows have to choose gate and policy."""
        if self.tasks.fractions["validate"] == 0 and _needs_validate(dict(self)):
            raise ValueError(
                "tasks.fractions: validate: 0 leaves the choice of gate and threshold to train rows that are left out,"
                " which needs learner.name: analytic, learner.equal_classes: 0, an encoder of one vector a row, no"
                " tasks.long_tail and tune.prompt_modes: [none]; give validate a share, such as 0.15"
            )
        return self

    @model_validator(mode="after")
    def _updatable(self) -> RunConfig:
        if self.update is None:
            return self
        if not self.train.mask_unseen:
            raise ValueError(
                "update: needs train.mask_unseen: true, since labels of later tasks are not known before they come"
            )
        if self.serve.feedback.store_payloads not in ("text", "all"):  # a kept item's input is learned from, too
            raise ValueError(
                "update: learns from the inputs of its traffic: choose serve.feedback.store_payloads: text or all"
            )
        if self.certificate.every_task:
            raise ValueError(
                "update: a window of traffic holds too few requests of some tasks to be certified within every one:"
                " set certificate.every_task: false, or tune.scopes: [per_task] for a promise of each task"
            )
        return self


def _are_sections(values: Mapping[str, Any]) -> bool:
    """Whether what `_needs_validate` reads has its form; what has another one is refused when it is validated."""
    sections = [values.get(name) or {} for name in ("learner", "encoder", "tune")]
    tune = sections[-1]
    modes = tune.get("prompt_modes") or [] if isinstance(tune, dict) else []
    return all(isinstance(each, dict | Config) for each in sections) and isinstance(modes, list | tuple)


def _needs_validate(values: Mapping[str, Any]) -> bool:
    """Whether gate and policy can be chosen on validate rows alone; sections are plain values or components.

    A learner that takes steps has seen its train rows; those of a long tail are not like later rows; where classes are
    counted anew, a row counts with others than its own unit's; prompts and galleries are made of validate rows.
    """
    learner, encoder, tasks, tune = (values.get(name) or {} for name in ("learner", "encoder", "tasks", "tune"))
    solver: Any = LearnerConfig.form_of(learner) if isinstance(learner, dict) else learner
    small: Any = EncoderConfig.form_of(encoder) if isinstance(encoder, dict) else encoder
    equal, long_tail, modes = (
        section.get(name) if isinstance(section, dict) else getattr(section, name, None)
        for section, name in ((learner, "equal_classes"), (tasks, "long_tail"), (tune, "prompt_modes"))
    )
    prompts = tuple(modes or ("none",)) != ("none",)
    return not solver.gives_left_out or bool(equal) or small.dual or long_tail is not None or prompts
