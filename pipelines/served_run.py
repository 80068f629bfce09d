"""What serving needs of the configuration of a run, without the sections of what trains it: those import torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from kcm.assets import AssetsFolder, default_assets
from kcm.config import Config
from kcm.costs import CostsConfig
from kcm.large import LargeConfig
from pipelines.cluster.config import ClusterConfig
from pipelines.loop.config import AUDIT_SHARE, UpdateConfig
from pipelines.registry.gates import GateConfig
from pipelines.serve.config import ServeConfig
from pipelines.store.files import normalised
from pipelines.store.storage import Storage
from pipelines.tracking.config import TrackingConfig

# The keys that `pipelines.config.RunConfig` adds.
TRAINED_BY = frozenset(
    {
        "certificate",
        "collaborators",
        "distill",
        "encoder",
        "learner",
        "network",
        "prompts",
        "seed",
        "tasks",
        "train",
        "tune",
    }
)


class ServedRun(Config):
    """The keys of a run that its service is made of; those of what trains it are passed over."""

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
    serve: ServeConfig = ServeConfig()
    update: UpdateConfig | None = Field(None, description="How the served cascade is updated from its own traffic.")
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError("must be letters, digits, dots, dashes and underscores, a letter or digit first")
        return value

    @model_validator(mode="before")
    @classmethod
    def _passed_over(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if key in cls.model_fields or key not in TRAINED_BY}

    @model_validator(mode="before")
    @classmethod
    def _assets(cls, values: Any) -> Any:
        """A path that is not given is the environment's."""
        return {"assets_path": default_assets()} | values if isinstance(values, dict) else values

    @field_validator("storage_path", mode="before")
    @classmethod
    def _stored(cls, value: object) -> object:
        """A path or a URI. Workers run in folders of their own, so no path may be relative."""
        if not isinstance(value, str | Path):
            return value
        place = normalised(value)
        return place if "://" in place else Path(place)

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

    @model_validator(mode="after")
    def _recorded(self) -> ServedRun:
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
    def application(self) -> str:
        """The name under which the decisions stand in the log."""
        return self.serve.application or self.name

    @property
    def gate_limits(self) -> GateConfig:
        """The limits that a version must keep to become the champion."""
        return self.update.gates if self.update else GateConfig()

    @property
    def storage_folder(self) -> Path:
        """The folder of this node for the storage: the storage itself, but for one in a bucket."""
        return Storage.at(self.storage_path).root
