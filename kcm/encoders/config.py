"""The common configuration of all encoders, and the configuration of two encoders to align."""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, Self, TypedDict, Unpack
from weakref import WeakValueDictionary

import numpy as np
from pydantic import Field, model_validator

from kcm.components import FAMILIES, Component, Family
from kcm.config import Config
from kcm.errors import AssetError, ConfigError
from kcm.inputs.content import TEXT, Content, Part
from kcm.inputs.pictures import read_readable

Runtime = Literal["auto", "torch", "onnx"]
Precision = Literal["float32", "bfloat16", "int8"]
Arrays = Mapping[str, np.ndarray]  # a batch of inputs, by the names of a network's arguments

# Encoders are frozen: versions of a model that use the same encoder share one object.
_IN_USE: WeakValueDictionary[tuple[EncoderConfig, str, str], Encoder] = WeakValueDictionary()
_BUILDING = threading.RLock()  # a dual encoder builds its own towers


class EncoderSettings(TypedDict, total=False):
    """Settings that some kinds of encoders have; None leaves one unchanged."""

    runtime: Runtime | None
    words: Literal["auto", "none"]
    output: Part
    dim: int | None


class EncoderConfig(Component):
    """A frozen backbone: one content, one float32 vector."""

    family: ClassVar[Family] = FAMILIES["encoder"]
    dual: ClassVar[bool] = False  # embeds pictures and texts in one space; its `output` selects one part

    kind: str = Field("", description="Chooses this form of the section.")
    batch_size: int = Field(64, ge=1, description="Inputs per forward pass.")

    @property
    @abstractmethod
    def reads(self) -> frozenset[Part]:
        """The parts of a content that it reads."""

    @abstractmethod
    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        """The encoder, ready to encode.

        Raises AssetError if weights are missing or damaged, and ConfigError if the configuration does not fit them.
        """

    @abstractmethod
    def identity(self, assets_dir: Path) -> str:
        """The identity of the encoder, without loading weights; raises the errors of `load`.

        It excludes the folder's name and the batch size.
        """

    def build(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        """`load`, with one shared object per configuration and process."""
        with _BUILDING:
            key = self, self.identity(assets_dir), device
            encoder = _IN_USE.get(key)
            if encoder is None:
                _IN_USE[key] = encoder = self.load(assets_dir, device)
            return encoder

    @property
    def name(self) -> str:
        """The name of the encoder, for people."""
        return self.kind

    @property
    def vector_columns(self) -> tuple[str, ...]:
        """Names, or patterns such as f_*, of the columns of a row's vector; empty if none is read."""
        return ()

    def with_settings(self, **values: Unpack[EncoderSettings]) -> Self:
        """This encoder with the values that are settings of its kind.

        A kind without a setting, such as the `runtime` of pixels, has no use for its value.
        """
        own = {name: value for name, value in values.items() if name in type(self).model_fields and value is not None}
        return self.model_copy(update=own)

    @property
    def fits_words(self) -> bool:
        """Whether a run fits words beside this encoder's features, see `kcm.encoders.words`."""
        return False

    @property
    def to_align(self) -> TowersConfig | None:
        """The encoders to align before this one can be loaded; None if there are none."""
        return None

    @property
    def fitted_head(self) -> Path | None:
        """The folder of the alignment head or the words that a run fitted for this encoder; None if there is none."""
        return None

    def reader(self, assets_dir: Path) -> Callable[[Content], Content]:
        """A function that reads one content, like `Encoder.read`, without weights; raises the errors of `load`."""
        return lambda content: content

    def aligned(self, folder: Path) -> EncoderConfig:
        """This encoder with the fitted head in `folder`."""
        return self

    @property
    def in_use(self) -> Runtime | None:
        """The runtime of the network; `auto` before it is resolved, None if there is no choice."""
        return None

    def computed_by(self, device: str) -> str:
        """Runtime and device that compute the features, such as `onnx on cpu`; empty without a network.

        Raises ConfigError for a precision that the device does not support.
        """
        return kind_of(device)

    def resolved(self, assets_dir: Path, device: str = "cpu") -> Self:
        """The same encoder with `auto` resolved to a runtime; raises the errors of `load`."""
        if self.in_use != "auto":
            return self.with_settings(runtime=self.in_use)
        exported, in_torch = self.with_settings(runtime="onnx"), self.with_settings(runtime="torch")
        if device != "cpu":
            return in_torch
        try:
            exported.build(assets_dir)
        except (AssetError, ImportError):
            return in_torch
        return exported


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
    def in_use(self) -> Runtime | None:
        return _NEEDS.get(self.precision, self.runtime)

    def computed_by(self, device: str) -> str:
        if self.in_use is None:
            return super().computed_by(device)
        return f"{'onnx' if self.is_exported(device) else 'torch'} on {kind_of(device)}"

    def is_exported(self, device: str) -> bool:
        """Whether the exported network runs; a GPU uses torch.

        Raises ConfigError for int8 on a GPU.
        """
        if device == "cpu":
            return self.in_use == "onnx"
        if self.precision == "int8":
            raise ConfigError(
                f"precision int8 does not run on {device}", where="encoder.precision", hint="Use float32 or bfloat16"
            )
        return False


_NEEDS: Mapping[str, Runtime] = MappingProxyType({"bfloat16": "torch", "int8": "onnx"})


def kind_of(device: str) -> str:
    """The kind of a torch device: cuda for cuda:0."""
    return device.partition(":")[0]


class TowersConfig(Config):
    """Two frozen encoders, and how their alignment head is fitted on the matching rows of the train split."""

    image: EncoderConfig = Field(description="Encoder of the pictures, of any other kind above.")
    text: EncoderConfig = Field(description="Encoder of the texts, of any other kind above.")
    share: float = Field(
        0.6,
        gt=0,
        lt=1,
        description="Share of the train groups that the head is fitted on; nothing else learns from them.",
    )

    @model_validator(mode="after")
    def _towers_read_their_part(self) -> TowersConfig:
        parts: tuple[Part, ...] = ("image", "text")
        for part in parts:
            tower = getattr(self, part)
            if tower.reads != {part} or tower.dual:
                raise ValueError(f"{part}: an encoder of kind {tower.kind!r} does not read the {part} alone")
        return self


class Network(Protocol):
    """Computes vectors of a batch. Thread-safe."""

    def __call__(self, inputs: Arrays) -> np.ndarray:
        """Float32 [B, D], from arrays whose first dimension is B."""


class Encoder(Protocol):
    """A frozen encoder. `identity` covers everything that determines its output: weights, tokenizer, pooling, dtype."""

    @property
    def dim(self) -> int:
        """Length of a feature vector."""

    @property
    def identity(self) -> str:
        """A digest that two encoders share only if they encode identically."""

    @property
    def reads(self) -> frozenset[Part]:
        """The parts of a content that it reads."""

    def read(self, content: Content) -> Content:
        """The content with its picture decoded in advance; unchanged if there is nothing to decode.

        Raises PartError for an unreadable content.
        """

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Features, float32 [N, dim], in the order of the inputs, read in advance or not.

        Raises UnreadableError for unreadable inputs.
        """


def encode_readable(encoder: Encoder, inputs: Sequence[Content]) -> tuple[np.ndarray, dict[int, str]]:
    """Features of the readable inputs, in order, and the faults of the others by position."""
    if encoder.reads <= TEXT:  # any text can be read
        return encoder.encode(inputs), {}
    readable, faults = read_readable(inputs, encoder.read)
    return encoder.encode(readable), faults


def read_json(file: Path) -> Any:
    """The content of a file in a model's folder. Raises AssetError for an unreadable one."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AssetError(f"cannot load the model: {file.name}: {error}", where=str(file.parent)) from None
