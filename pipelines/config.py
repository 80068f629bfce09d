"""The configuration of one run: every section is the model of the component that it configures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from kcm.assets.resolve import AssetsFolder, default_assets
from kcm.cascade.search import TuneConfig
from kcm.certification.certificate import CertificateConfig
from kcm.collaborator.collaborator import CollaboratorName, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.config import Config
from kcm.costs import CostsConfig
from kcm.encoders import EncoderConfig
from kcm.encoders.config import is_dual
from kcm.encoders.text_settings import without_words
from kcm.errors import ConfigError
from kcm.inputs.location import Location
from kcm.kan.mixed_splines import MIN_FREE
from kcm.large import LargeConfig, UpstreamConfig
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

# Defaults of a run without a learner: closed form, which forgets nothing and needs no tuning (docs/results.md).
DEFAULT_LEARNING: dict[str, dict[str, Any]] = {
    "network": {"hidden": [], "basis": "auto", "mixing": 512, "grid_size": 4, "spline_order": 2},
    "learner": {"name": "analytic"},
    "train": {"mask_unseen": True},
}


OPERATIONAL = frozenset(
    {"cluster", "tracking", "serve", "update", "costs", "paid_answers"}
)  # these keys change no result
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
        description="Models by their ids, in a folder or a bucket; others come from the hub. By default the place in "
        "KCM_ASSETS.",
    )
    large: LargeConfig
    costs: CostsConfig = CostsConfig()
    paid_answers: PlainUrl | None = Field(
        None,
        description="Store of the large model's paid answers: a folder, a file or a database's URL, for example "
        "the store of `kcm label`. null: in `storage_path`.",
    )
    serve: ServeConfig = ServeConfig()
    update: UpdateConfig | None = Field(None, description="How the served cascade is updated from its own traffic.")
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()
    seed: int = Field(0, ge=0, description="Seed of splits, orders, initial weights and search.")
    collaborators: tuple[CollaboratorName, ...] = Field(
        ("kcm", "mcm"),
        min_length=1,
        description="Small models to train. The first one is deployed, the others are controls. `kcm`: a KAN. `mcm`: "
        "an MLP; in closed form, random ReLU units. `linear`: logistic regression on the same features.",
    )
    tasks: TasksConfig
    encoder: EncoderConfig
    network: NetworkConfig = NetworkConfig()
    learner: LearnerConfig = Field(
        AnalyticConfig(),
        description="By default `analytic`, with matching `network` and `train` unless they are set: see "
        "docs/results.md.",
    )
    train: TrainConfig = TrainConfig()
    distill: DistillConfig = DistillConfig()
    tune: TuneConfig = TuneConfig()
    certificate: CertificateConfig = CertificateConfig()

    @model_validator(mode="before")
    @classmethod
    def _by_default(cls, values: Any) -> Any:
        """Defaults: assets from the environment; without a named learner, three sections that belong together."""
        if not isinstance(values, dict):
            return values
        values = {"assets_path": default_assets()} | values
        sections: dict[str, Any] = {section: values.get(section) or {} for section in DEFAULT_LEARNING}
        if all(isinstance(section, dict) for section in sections.values()) and "name" not in sections["learner"]:
            if sections["network"].get("basis") == "quadratic":  # as many coefficients as the splines of `auto` have
                sections["network"] = {"mixing": 2048} | sections["network"]
            return values | {section: DEFAULT_LEARNING[section] | sections[section] for section in sections}
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
        """A path or a URI, made absolute because workers run in their own folders."""
        if not isinstance(value, str | Path):
            return value
        place = normalised(value)
        return place if "://" in place else Path(place)

    @field_validator("collaborators")
    @classmethod
    def _distinct(cls, value: tuple[CollaboratorName, ...]) -> tuple[CollaboratorName, ...]:
        if len(set(value)) != len(value):
            raise ValueError("name each collaborator only once")
        return value

    @model_validator(mode="after")
    def _learnable(self) -> RunConfig:
        self.learner.check_network(self.network)
        if self.network.basis == "auto" and not self.learner.gives_left_out:  # nothing to choose by
            self._settle(network=self.network.with_basis("pspline"))
        return self

    @model_validator(mode="after")
    def _reads_words(self) -> RunConfig:
        """Fit words only for networks that are linear in them: units that are solved in closed form."""
        if self.network.basis == "spline" or not self.learner.closed_form:
            self._settle(encoder=without_words(self.encoder))
        return self

    @model_validator(mode="after")
    def _learns_curves(self) -> RunConfig:
        """KCM must learn the curve of every edge, or have parabolas."""
        is_parabola = self.network.basis == "quadratic"
        if "kcm" in self.collaborators and not is_parabola and self.network.num_free < MIN_FREE:
            raise ValueError(
                f"network: an edge of KCM has {self.network.num_free} free coefficients besides its line, a "
                f"learned curve needs {MIN_FREE}: set network.basis: auto, pspline or quadratic"
            )
        return self

    @model_validator(mode="after")
    def _chosen(self) -> RunConfig:
        """Draw no validate rows if train rows can choose gate and policy. ValueError if they are needed but missing."""
        if not self._needs_validate:
            if "fractions" not in self.tasks.model_fields_set:
                self._settle(tasks=self.tasks.model_copy(update={"fractions": LEFT_OUT_FRACTIONS}))
        elif self.tasks.fractions["validate"] == 0:
            raise ValueError(
                "tasks.fractions: with validate: 0, left-out train rows choose gate and threshold. This needs "
                "learner.name: analytic, learner.equal_classes: 0, an encoder with one vector per row, and "
                "no tasks.long_tail. Set validate to a share, such as 0.15"
            )
        return self

    @model_validator(mode="after")
    def _certifiable(self) -> RunConfig:
        """Certify rows certify the first champion, unless it is deployed without a certificate."""
        is_uncertified = self.first_threshold is not None
        if is_uncertified != (self.tasks.fractions["certify"] == 0):
            raise ValueError(
                "update.first_threshold deploys the first champion without a certificate: set "
                "tasks.fractions.certify: 0 as well, or remove it"
            )
        if is_uncertified and self.tune.gates != ("confidence",):
            raise ValueError("update.first_threshold applies to the gate confidence: set tune.gates: [confidence]")
        return self

    @model_validator(mode="after")
    def _updatable(self) -> RunConfig:
        if self.update is None:
            return self
        if not self.train.mask_unseen:
            raise ValueError(
                "update: needs train.mask_unseen: true, because labels of later tasks are unknown in advance"
            )
        if self.serve.feedback.store_payloads not in ("text", "all"):  # updates also learn from inputs of kept items
            raise ValueError("update: learns from stored inputs: set serve.feedback.store_payloads to text or all")
        if self.certificate.epsilon == 0:
            raise ValueError(
                "update: a certificate on traffic does not credit wins, so it cannot reach epsilon 0: set "
                "certificate.epsilon above 0, such as 0.02"
            )
        return self

    @model_validator(mode="after")
    def _audited(self) -> RunConfig:
        """The default audit share of a cascade with updates is above 0."""
        audit = self.serve.audit
        if self.update is not None and "share" not in audit.model_fields_set:
            audited = audit.model_copy(update={"share": AUDIT_SHARE})
            self._settle(serve=self.serve.model_copy(update={"audit": audited}))
        return self

    def appended(self, table: str) -> RunConfig:
        """The configuration for the rows of another table. ConfigError if the source reads no tables."""
        source, location = self.tasks.source, Location.of(table)
        place = str(Path(table).absolute()) if location.is_local else table
        tasks = self.tasks.model_copy(update={"source": source.next_table(place)})
        return self.model_copy(update={"tasks": tasks, "large": self.large.next_table(place, source.paths)})

    def _settle(self, **sections: Config) -> None:
        """Replace sections whose defaults depend on others; from then on the configuration is frozen."""
        self.__dict__.update(sections)

    @property
    def _needs_validate(self) -> bool:
        """Whether gate and policy can be chosen on validate rows alone.

        Train rows cannot choose in these cases. A stepwise learner has seen them. Rows of a long tail differ from later
        rows. With equal classes, a row's weight depends on other units. Galleries are made from validate rows.
        """
        is_solved = self.learner.gives_left_out and not getattr(self.learner, "equal_classes", 0)
        return not (is_solved and not is_dual(self.encoder) and self.tasks.long_tail is None)

    @model_validator(mode="after")
    def _recorded(self) -> RunConfig:
        """Refuse databases in a bucket."""
        if isinstance(self.storage_path, Path):
            return self
        missing = [
            key
            for key, url in {"tracking.uri": self.tracking.uri, "serve.feedback.url": self.serve.feedback.url}.items()
            if url is None
        ]
        if missing:
            raise ValueError(
                f"storage_path {self.storage_path} cannot hold databases: set {' and '.join(missing)}, such as "
                "postgresql+psycopg://USER@HOST/NAME"
            )
        return self

    def require_update(self) -> UpdateConfig:
        """The section `update`. Raises ConfigError for a configuration without it."""
        if self.update is None:
            raise ConfigError(
                f"the configuration of {self.name!r} has no section `update`", hint="Add `update: {}` to it"
            )
        return self.update

    @property
    def first_threshold(self) -> float | None:
        """The threshold of a first champion without a certificate; None if certify rows certify it."""
        return self.update.first_threshold if self.update else None

    @property
    def application(self) -> str:
        """The application name of the decisions in the log."""
        return self.serve.application or self.name

    @property
    def upstreams(self) -> tuple[UpstreamConfig, ...]:
        """The allowed servers of a bundle's large model: the configured servers and the run's own server."""
        configured, own_upstream = self.serve.large.upstreams, self.large.upstream
        if own_upstream is None or own_upstream.base_url in {upstream.base_url for upstream in configured}:
            return configured
        return (*configured, own_upstream)

    @property
    def gate_limits(self) -> GateConfig:
        """The limits that a version must meet to become the champion."""
        return self.update.gates if self.update else GateConfig()

    @property
    def storage_folder(self) -> Path:
        """The local folder of the storage: the storage itself, unless it is in a bucket."""
        return Storage.at(self.storage_path).root
