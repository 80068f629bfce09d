"""The configuration of one run: every section is the model of the component that it configures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from kcm.assets import AssetsFolder, default_assets
from kcm.cascade.search import TuneConfig
from kcm.certification.certificate import CertificateConfig
from kcm.collaborator.collaborator import CollaboratorName, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.config import Config
from kcm.costs import CostsConfig
from kcm.encoders import EncoderConfig
from kcm.kan.mixed_splines import MIN_FREE
from kcm.large import LargeConfig, PromptsConfig, UpstreamConfig
from kcm.learners import LearnerConfig
from kcm.learners.analytic import AnalyticConfig
from kcm.learners.training.config import TrainConfig
from kcm.redact import PlainUrl
from kcm.tasks import TasksConfig
from kcm.tasks.splits import LEFT_OUT_FRACTIONS
from pipelines.cluster.config import ClusterConfig
from pipelines.loop.config import AUDIT_SHARE, UpdateConfig
from pipelines.registry.gates import GateConfig
from pipelines.serve.config import ServeConfig
from pipelines.store.files import normalised
from pipelines.store.storage import Storage
from pipelines.tracking.config import TrackingConfig

# How a run learns that names no learner: in closed form. Its learned curves forget nothing and need no tuning
# (docs/results.md).
DEFAULT_LEARNING: dict[str, dict[str, Any]] = {
    "network": {"hidden": [], "basis": "pspline", "mixing": 512, "grid_size": 4, "spline_order": 2},
    "learner": {"name": "analytic"},
    "train": {"mask_unseen": True},
}


OPERATIONAL = frozenset({"cluster", "tracking", "serve", "update", "costs", "paid_answers"})  # change no result
PLACES = frozenset({"storage_path", "assets_path"})


class RunConfig(Config):
    """One run of the pipeline, from rows to a registered bundle."""

    name: str = Field(description="Names the run's folder and its model: letters, digits, dots, dashes, underscores.")
    storage_path: Path | str = Field(
        Path("storage"),
        description="Artefacts, runs and records: a folder that all nodes see, or s3://BUCKET/PREFIX or "
        "gs://BUCKET/PREFIX, which needs `tracking.uri` and `serve.feedback.url`.",
    )
    assets_path: AssetsFolder = Field(
        Path("assets"),
        description="Models and data that `kcm assets` fetched, in a folder or a bucket; KCM_ASSETS says where, unless "
        "it is given.",
    )
    large: LargeConfig
    costs: CostsConfig = CostsConfig()
    paid_answers: PlainUrl | None = Field(
        None,
        description="Store of the large model's paid answers, a folder, a file or a database's URL, such as that of"
        " `kcm label`; null: in `storage_path`.",
    )
    serve: ServeConfig = ServeConfig()
    update: UpdateConfig | None = Field(None, description="How the served cascade is updated from its own traffic.")
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()
    seed: int = Field(0, ge=0, description="Seed of splits, orders, initial weights and search.")
    collaborators: Literal["auto"] | tuple[CollaboratorName, ...] = Field(
        "auto",
        description="What is trained: `kcm`, a KAN with learned curves; `mcm`, an MLP; `quadratic`, squares of random"
        " projections, solved in closed form; `linear`, logistic regression on the same features. auto: all, and that"
        " one is deployed of which a certificate should leave most, by rows that choose it; of a list the first one is"
        " deployed, the others are its controls, as `linear` is in every run.",
    )
    tasks: TasksConfig
    encoder: EncoderConfig
    network: NetworkConfig = NetworkConfig()
    learner: LearnerConfig = Field(
        AnalyticConfig(),
        description="Named none, `analytic`, with `network` and `train` to suit it where these are not set: see"
        " docs/results.md.",
    )
    train: TrainConfig = TrainConfig()
    distill: DistillConfig = DistillConfig()
    tune: TuneConfig = TuneConfig()
    prompts: PromptsConfig = PromptsConfig()
    certificate: CertificateConfig = CertificateConfig()

    @model_validator(mode="before")
    @classmethod
    def _by_default(cls, values: Any) -> Any:
        """Assets are where the environment says; without a named learner three sections are of one piece."""
        if not isinstance(values, dict):
            return values
        values = {"assets_path": default_assets()} | values
        given = {section: values.get(section) or {} for section in DEFAULT_LEARNING}
        if all(isinstance(section, dict) for section in given.values()) and "name" not in given["learner"]:
            return values | {section: DEFAULT_LEARNING[section] | given[section] for section in given}
        return values

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError("must be letters, digits, dots, dashes and underscores, a letter or digit first")
        return value

    @field_validator("storage_path", mode="before")
    @classmethod
    def _stored(cls, value: object) -> object:
        """A path or a URI. Workers run in folders of their own, so no path may be relative."""
        if not isinstance(value, str | Path):
            return value
        place = normalised(value)
        return place if "://" in place else Path(place)

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
            names: tuple[CollaboratorName, ...] = get_args(CollaboratorName)
            return tuple(name for name in names if name != "quadratic" or self.learner.closed_form)
        if self.tune.prompt_modes != ("none",):
            return self.collaborators
        return tuple(dict.fromkeys((*self.collaborators, "linear")))

    @model_validator(mode="after")
    def _learnable(self) -> RunConfig:
        self.learner.check_network(self.network)
        return self

    @model_validator(mode="after")
    def _learns_curves(self) -> RunConfig:
        """What is called KCM learns the curve of every edge."""
        if "kcm" in self.trained and self.network.num_free < MIN_FREE:
            raise ValueError(
                f"network: an edge of KCM has {self.network.num_free} free coefficients beside its line, and {MIN_FREE}"
                " make a learned curve: give network.basis: pspline; `quadratic` is a collaborator of its own"
            )
        return self

    @model_validator(mode="after")
    def _chosen(self) -> RunConfig:
        """Without validate rows, train rows have to choose gate and policy; where they can, none are drawn."""
        if not self._needs_validate:
            if "fractions" not in self.tasks.model_fields_set:
                self._settle(tasks=self.tasks.model_copy(update={"fractions": LEFT_OUT_FRACTIONS}))
        elif self.tasks.fractions["validate"] == 0:
            raise ValueError(
                "tasks.fractions: validate: 0 leaves the choice of gate and threshold to train rows that are left out,"
                " which needs learner.name: analytic, learner.equal_classes: 0, an encoder of one vector a row, no"
                " tasks.long_tail and tune.prompt_modes: [none]; give validate a share, such as 0.15"
            )
        return self

    @model_validator(mode="after")
    def _certifiable(self) -> RunConfig:
        """Certify rows certify the first champion, unless it is deployed without a certificate."""
        without = self.first_threshold is not None
        if without != (self.tasks.fractions["certify"] == 0):
            raise ValueError(
                "update.first_threshold deploys the first champion without a certificate: set it together with"
                " tasks.fractions.certify: 0, or set neither"
            )
        if without and (self.tune.gates != ("confidence",) or self.certificate.max_call_rate is not None):
            raise ValueError(
                "update.first_threshold is one of gate confidence, and promises no call rate: set tune.gates:"
                " [confidence] and certificate.max_call_rate: null"
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
        if self.certificate.epsilon == 0:
            raise ValueError(
                "update: a window of traffic is certified without crediting wins, which cannot show epsilon 0:"
                " set certificate.epsilon above 0, such as 0.02"
            )
        if self.certificate.every_task:
            raise ValueError(
                "update: a window of traffic holds too few requests of some tasks to be certified within every one:"
                " set certificate.every_task: false, or tune.scopes: [per_task] for a promise of each task"
            )
        return self

    @model_validator(mode="after")
    def _audited(self) -> RunConfig:
        """A cascade that is updated from its traffic is audited, unless another share is configured."""
        audit = self.serve.audit
        if self.update is not None and "share" not in audit.model_fields_set:
            audited = audit.model_copy(update={"share": AUDIT_SHARE})
            self._settle(serve=self.serve.model_copy(update={"audit": audited}))
        return self

    def _settle(self, **sections: Config) -> None:
        """Replace sections whose defaults depend on others; from then on the configuration is frozen."""
        self.__dict__.update(sections)

    @property
    def _needs_validate(self) -> bool:
        """Whether gate and policy can be chosen on validate rows alone.

        A learner that takes steps has seen its train rows; those of a long tail are not like later rows; where classes
        are counted anew, a row counts with others than its own unit's; prompts and galleries are made of validate rows.
        """
        is_solved = self.learner.gives_left_out and not getattr(self.learner, "equal_classes", 0)
        asks_alike = self.tune.prompt_modes == ("none",) and not self.encoder.dual
        return not (is_solved and asks_alike and self.tasks.long_tail is None)

    @model_validator(mode="after")
    def _recorded(self) -> RunConfig:
        """No database can lie in a bucket."""
        if isinstance(self.storage_path, Path):
            return self
        missing = [
            key
            for key, url in {"tracking.uri": self.tracking.uri, "serve.feedback.url": self.serve.feedback.url}.items()
            if url is None
        ]
        if missing:
            raise ValueError(
                f"storage_path {self.storage_path} is no folder for databases: set {' and '.join(missing)}, such as"
                " postgresql+psycopg://USER@HOST/NAME"
            )
        return self

    @property
    def first_threshold(self) -> float | None:
        """The threshold of a first champion without a certificate; None if certify rows certify it."""
        return self.update.first_threshold if self.update else None

    @property
    def application(self) -> str:
        """The name under which the decisions stand in the log."""
        return self.serve.application or self.name

    @property
    def upstreams(self) -> tuple[UpstreamConfig, ...]:
        """The servers that a bundle's large model may be asked at: those that are configured, and the run's own."""
        configured, own = self.serve.large.upstreams, self.large.upstream
        if own is None or own.base_url in {each.base_url for each in configured}:
            return configured
        return (*configured, own)

    @property
    def gate_limits(self) -> GateConfig:
        """The limits that a version must keep to become the champion."""
        return self.update.gates if self.update else GateConfig()

    @property
    def storage_folder(self) -> Path:
        """The folder of this node for the storage: the storage itself, but for one in a bucket."""
        return Storage.at(self.storage_path).root
