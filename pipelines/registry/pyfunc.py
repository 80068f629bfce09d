"""A bundle as an MLflow model: `mlflow.pyfunc.load_model("models:/NAME@champion")`, and `mlflow models serve`.

MLflow's files are next to the bundle's own files and not part of the bundle, so its digest does not change. MLflow
imports this module by the name in the `MLmodel` file and calls `_load_pyfunc`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array

from kcm.api.cascade import Cascade, load
from kcm.api.rows import ANSWERS
from kcm.bundle.bundle import Bundle, facts
from kcm.bundle.runtime import probe_of
from kcm.config import Config, parse_config
from kcm.inputs.vectors import FEATURES
from kcm.large import UpstreamConfig
from pipelines.tracking.tracking import Tracking

_PARTS: dict[str, DataType | Array] = {
    "text": DataType.string,
    "image": DataType.binary,
    FEATURES: Array(DataType.double),
}


class ModelConfig(Config):
    """The `model_config` of `load_model`; each key as in `kcm.load`."""

    assets: str | None = None
    device: str = "cpu"
    upstreams: tuple[UpstreamConfig, ...] = ()


class PyfuncCascade:
    """A cascade behind MLflow's interface."""

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade

    def predict(self, frame: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """The answers as columns, one row per row of the frame."""
        return self.cascade.predict(frame)[ANSWERS.names]


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> PyfuncCascade:
    config = parse_config(ModelConfig, model_config or {}, where="model_config")
    return PyfuncCascade(load(path, assets=config.assets, device=config.device, upstreams=config.upstreams))


def register_model(
    tracking: Tracking, model_name: str, bundle: Path, fingerprint: str, tags: Mapping[str, str] | None = None
) -> str:
    """Register the bundle in a folder as a new version of an MLflow model; returns the version."""
    return tracking.register(
        model_name, bundle, fingerprint, tags, write_beside=lambda folder: write_flavor(Bundle.read(bundle), folder)
    )


def write_flavor(bundle: Bundle, folder: Path) -> str:
    """Write MLflow's files for a bundle to a new folder; returns its description as Markdown."""
    probe = probe_of(bundle)
    example = {"text": probe.text, "image": probe.image, FEATURES: probe.vector}
    parts = _columns(bundle)
    mlflow.pyfunc.save_model(
        path=str(folder),
        loader_module=__name__,
        model_config=ModelConfig().model_dump(mode="json"),  # MLflow drops every key that is not listed here
        pip_requirements=[f"kcm-cascade[onnx]=={version('kcm-cascade')}"],
        signature=_signature(bundle),
        input_example=pd.DataFrame({part: [example[part]] for part in parts}) if parts else None,
    )
    return "\n".join(f"- **{name}**: {fact}" for name, fact in facts(bundle).items())


def _columns(bundle: Bundle) -> list[str]:
    """The column names of an input's parts."""
    return [FEATURES if part == "vector" else part for part in sorted(bundle.reads)]


def _signature(bundle: Bundle) -> ModelSignature:
    """Text and picture as the models read them; task and id if they are known. Answers, or the error."""
    input_columns = [ColSpec(_PARTS[part], part) for part in _columns(bundle)]
    optional_columns = [ColSpec(DataType.string, name, required=False) for name in ("task", "id")]
    answer_columns = [ColSpec(DataType[str(field.type)], field.name, required=False) for field in ANSWERS]
    return ModelSignature(inputs=Schema([*input_columns, *optional_columns]), outputs=Schema([*answer_columns]))
