"""What computes an encoder: the settings of a network, the choice of its runtime, and what a device runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Self

from pydantic import Field, model_validator

from kcm.encoders.config import EncoderConfig, EncoderT, Engine, Precision, Runtime
from kcm.errors import AssetError, ConfigError

_NEEDS: Mapping[str, Runtime] = MappingProxyType({"bfloat16": "torch", "int8": "onnx"})


class NetworkEncoderConfig(EncoderConfig):
    """A frozen network that runs in torch or, exported, in ONNX Runtime.

    The precision changes the features and is part of the encoder's identity; the runtime is not, because its results
    are checked to be within `kcm.encoders.export.TOLERANCE`.
    """

    operational: ClassVar[frozenset[str]] = frozenset({"kind", "model", "batch_size", "runtime"})  # or by identity

    runtime: Runtime = Field(
        "auto",
        description="What computes it on CPUs: `torch`, `onnx`, or `auto`: ONNX Runtime where the network can be "
        "exported, which a run finds out and records, else torch. On GPUs it is torch.",
    )
    precision: Precision = Field(
        "float32",
        description="Precision of the network: bfloat16 by torch alone, int8 (products of matrices) by onnx alone.",
    )

    @model_validator(mode="after")
    def _can_be_computed(self) -> Self:
        needed = _NEEDS.get(self.precision)
        if needed and self.runtime not in ("auto", needed):
            raise ValueError(f"precision {self.precision} needs runtime {needed}")
        return self

    @property
    def engine(self) -> Engine:
        return _NEEDS.get(self.precision, self.runtime)


def runtime_of(encoder: EncoderConfig) -> Runtime | None:
    """The runtime of an encoder's network; `auto` before it is resolved, None if there is no choice."""
    engine = encoder.engine
    return None if engine == "own" or engine == "numpy" else engine


def in_runtime(encoder: EncoderT, runtime: Runtime | None) -> EncoderT:
    """The encoder in another runtime, if its precision allows; unchanged without a choice, or if `runtime` is None."""
    has_choice = runtime is not None and runtime_of(encoder) is not None
    return encoder.with_settings(runtime=runtime) if has_choice else encoder


def resolved(encoder: EncoderT, assets_dir: Path, device: str = "cpu") -> EncoderT:
    """The same encoder with `auto` resolved to a runtime; raises the errors of `load`."""
    runtime = runtime_of(encoder)
    if runtime != "auto":
        return in_runtime(encoder, runtime)
    exported, in_torch = in_runtime(encoder, "onnx"), in_runtime(encoder, "torch")
    if device != "cpu":
        return in_torch
    try:
        exported.build(assets_dir)
    except (AssetError, ImportError):
        return in_torch
    return exported


def is_exported(encoder: EncoderConfig, device: str) -> bool:
    """Whether the exported network runs; a GPU uses torch.

    Raises ConfigError for int8 on a GPU.
    """
    if device == "cpu":
        return encoder.engine == "onnx"
    if getattr(encoder, "precision", None) == "int8":
        raise ConfigError(
            f"precision int8 does not run on {device}", where="encoder.precision", hint="Use float32 or bfloat16"
        )
    return False


def computed_by(encoder: EncoderConfig, device: str) -> str:
    """Runtime and device that compute the features, such as `onnx on cpu`; empty if no device changes them.

    Raises ConfigError for a precision that the device does not support.
    """
    if encoder.engine == "numpy":
        return ""
    if runtime_of(encoder) is None:
        return kind_of(device)
    return f"{'onnx' if is_exported(encoder, device) else 'torch'} on {kind_of(device)}"


def kind_of(device: str) -> str:
    """The kind of a torch device: cuda for cuda:0."""
    return device.partition(":")[0]
