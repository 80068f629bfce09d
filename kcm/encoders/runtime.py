"""What computes an encoder: the settings of a network, the choice of its runtime, and what a device runs."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from kcm.encoders.config import EncoderConfig, EncoderT, Engine, Runtime
from kcm.errors import AssetError


class NetworkEncoderConfig(EncoderConfig):
    """A frozen network that runs in torch or, exported, in ONNX Runtime.

    The runtime is no part of the encoder's identity, because results are checked to be within
    `kcm.encoders.export.TOLERANCE`. A bundle records it, and its certificate holds in no other.
    """

    operational: ClassVar[frozenset[str]] = frozenset({"kind", "model", "batch_size", "runtime"})  # or by identity

    runtime: Runtime = Field(
        "auto",
        description="What computes it on CPUs: `torch`, `onnx`, or `auto`: ONNX Runtime where the network can be "
        "exported, which a run finds out and records, else torch. On GPUs it is torch.",
    )

    @property
    def engine(self) -> Engine:
        return self.runtime


def runtime_of(encoder: EncoderConfig) -> Runtime | None:
    """The runtime of an encoder's network; `auto` before it is resolved, None if there is no choice."""
    engine = encoder.engine
    return None if engine == "own" or engine == "numpy" else engine


def in_runtime(encoder: EncoderT, runtime: Runtime | None) -> EncoderT:
    """The encoder in another runtime; unchanged without a choice, or if `runtime` is None."""
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
    """Whether the exported network runs; a GPU uses torch."""
    return device == "cpu" and encoder.engine == "onnx"


def computed_by(encoder: EncoderConfig, device: str) -> str:
    """Runtime and device that compute the features, such as `onnx on cpu`; empty if no device changes them."""
    if encoder.engine == "numpy":
        return ""
    if runtime_of(encoder) is None:
        return kind_of(device)
    return f"{'onnx' if is_exported(encoder, device) else 'torch'} on {kind_of(device)}"


def kind_of(device: str) -> str:
    """The kind of a torch device: cuda for cuda:0."""
    return device.partition(":")[0]
