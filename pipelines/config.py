"""The configuration of one run: every section is the model of the component that it configures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from kcm.cascade.search import TuneConfig
from kcm.certify.certificate import CertificateConfig
from kcm.collaborator.collaborator import CollaboratorName, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.config import Config
from kcm.costs import CostsConfig
from kcm.encoders import EncoderConfig
from kcm.large import LargeConfig, PromptsConfig
from kcm.learners import LearnerConfig, ReplayConfig
from kcm.learners.training.trainer import TrainConfig
from kcm.tasks import TasksConfig
from pipelines.cluster_config import ClusterConfig
from pipelines.loop.config import AUDIT_SHARE, UpdateConfig
from pipelines.serve.config import ServeConfig
from pipelines.store.files import normalised
from pipelines.store.storage import Storage
from pipelines.tracking_config import TrackingConfig

# How a run learns that names no learner: what forgets least of all that train, on held-out streams, and needs no tuning
# (`python benchmarks/default_learner.py`, docs/continual.md).
DEFAULT_LEARNING: dict[str, dict[str, Any]] = {
    "network": {
        "hidden": [],
        "spline_order": 1,
        "base_activation": "none",
        "centred": True,
        "zero_start": True,
        "base": "lda",
    },
    "learner": {"name": "replay", "memory": 1000, "batch_size": 256, "margin": 4.0},
    "train": {"optimizer": "sgd", "sgd_rate": 0.1, "num_epochs": 3, "mask_unseen": True},
}


class RunConfig(Config):
    """One run of the pipeline, from rows to a registered bundle."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Names the run's folder and its model.")
    storage_path: Path | str = Field(
        Path("storage"),
        description="Artefacts, runs and records: a folder that all nodes see, or s3://BUCKET/PREFIX or "
        "gs://BUCKET/PREFIX, which needs `tracking.uri` and `serve.feedback.url`.",
    )
    assets_path: Path = Field(Path("assets"), description="Models and data that `kcm assets` fetched.")
    seed: int = Field(0, ge=0, description="Seed of splits, orders, initial weights and search.")
    collaborators: Literal["auto"] | tuple[CollaboratorName, ...] = Field(
        "auto",
        description="What is trained; auto: both, and that one is deployed of which a certificate should leave most,"
        " by validate rows; of a list the first one is deployed, the other is its control.",
    )
    tasks: TasksConfig
    encoder: EncoderConfig
    large: LargeConfig
    network: NetworkConfig = NetworkConfig()
    learner: LearnerConfig = Field(
        ReplayConfig(),
        description="Named none, replay with asymmetric cross-entropy under SGD over LDA: what is not set of `network`,"
        " `learner` and `train` is then as in jobs/configs/own_data.yaml.",
    )
    train: TrainConfig = TrainConfig()
    distill: DistillConfig = DistillConfig()
    tune: TuneConfig = TuneConfig()
    prompts: PromptsConfig = PromptsConfig()
    certificate: CertificateConfig = CertificateConfig()
    costs: CostsConfig = CostsConfig()
    serve: ServeConfig = ServeConfig()
    update: UpdateConfig | None = Field(None, description="How the served cascade is updated from its own traffic.")
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("storage_path", mode="before")
    @classmethod
    def _stored(cls, value: object) -> object:
        """A path or a URI. Workers run in folders of their own, so no path may be relative."""
        if not isinstance(value, str | Path):
            return value
        place = normalised(value)
        return place if "://" in place else Path(place)

    @field_validator("assets_path", mode="before")
    @classmethod
    def _mounted(cls, value: object) -> object:
        """A URL would pass as a path, and become a folder of that name."""
        if "://" in str(value):
            raise ValueError(f"{value} is a URL: name a folder that all nodes see, such as a mounted bucket")
        return value

    @model_validator(mode="before")
    @classmethod
    def _audited(cls, values: Any) -> Any:
        """A cascade that is updated from its traffic is audited, unless another share is configured."""
        if not isinstance(values, dict) or values.get("update") is None:
            return values
        serve = values.get("serve") or {}
        if not isinstance(serve, dict) or not isinstance(audit := serve.get("audit") or {}, dict):
            return values
        return values | {"serve": serve | {"audit": {"share": AUDIT_SHARE} | audit}}

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

    @field_validator("assets_path")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        """Workers run in folders of their own, so no path may be relative."""
        return value.expanduser().absolute()

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

    @property
    def storage_folder(self) -> Path:
        """The folder of this node for the storage: the storage itself, but for one in a bucket."""
        return Storage.at(self.storage_path).root
