"""The section `tracking` of a configuration, in its own module because importing MLflow is slow."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from kcm.config import Config
from kcm.redact import PlainUrl

CHAMPION = "champion"  # the alias of the version that is served
SCHEME = "models:/"
DIGEST_TAG = "bundle_digest"  # tag of a version: the digest of its bundle
SQLITE = "sqlite:///"


class TrackingConfig(Config):
    """The place where runs and models are recorded; nothing here changes a result."""

    uri: PlainUrl | None = Field(
        None,
        description="MLflow tracking URI (password by MLFLOW_TRACKING_PASSWORD or PGPASSWORD); SQLite in the storage "
        "path without one.",
    )

    @field_validator("uri")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        """Jobs and workers work in folders of their own, so no path may be relative."""
        if value is None or not value.startswith(SQLITE):
            return value
        return f"{SQLITE}{Path(value.removeprefix(SQLITE)).absolute()}"

    def uri_in(self, storage_path: Path) -> str:
        """The tracking URI of runs that keep their artefacts in `storage_path`."""
        return self.uri or f"{SQLITE}{storage_path.absolute() / 'mlflow.db'}"
