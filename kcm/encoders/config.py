"""The common configuration of all encoders."""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar, final
from weakref import WeakValueDictionary

import numpy as np
from pydantic import Field

from kcm.components import FAMILIES, Component, Family
from kcm.errors import AssetError
from kcm.inputs.content import TEXT, Content, Part
from kcm.inputs.pictures import read_readable

Runtime = Literal["auto", "torch", "onnx"]
Engine = Runtime | Literal["own", "numpy"]
"""What computes vectors: a runtime, an encoder's own code on the device, or numpy, the same on every device."""

Arrays = Mapping[str, np.ndarray]  # a batch of inputs, by the names of a network's arguments
Network = Callable[[Arrays], np.ndarray]
"""Computes vectors of a batch, float32 [B, D], from arrays whose first dimension is B. Thread-safe."""

# Encoders are frozen: versions of a model that use the same encoder share one object.
_IN_USE: WeakValueDictionary[tuple[EncoderConfig, str, str], Encoder] = WeakValueDictionary()
_BUILDING = threading.RLock()  # a dual encoder builds its own sides


class EncoderConfig(Component):
    """A frozen backbone: one content, one float32 vector; see docs/extending.md for a kind of your own.

    Settings of the same name mean the same in all kinds. `model` is the model's folder or its id on the hub; `output`
    selects a part of an encoder that embeds pictures and texts in one space.
    """

    family: ClassVar[Family] = FAMILIES["encoder"]

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

    @property
    def engine(self) -> Engine:
        """What computes the vectors."""
        return "own"

    @property
    def fitted_head(self) -> Path | None:
        """The folder of what was fitted for this encoder, such as its words; None if there is none."""
        return None

    def aligned(self, folder: Path) -> EncoderConfig:
        """This encoder with what was fitted for it in `folder`."""
        return self

    @final
    def build(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        """`load`, with one shared object per configuration and process."""
        with _BUILDING:
            key = self, self.identity(assets_dir), device
            encoder = _IN_USE.get(key)
            if encoder is None:
                _IN_USE[key] = encoder = self.load(assets_dir, device)
            return encoder

    @property
    @final
    def name(self) -> str:
        """The name of the encoder, for people: its model, or else its kind."""
        return getattr(self, "model", "") or self.kind

    @final
    def with_settings(self, **values: object) -> Self:
        """This encoder with other values, which are not validated."""
        return self.model_copy(update=values)


EncoderT = TypeVar("EncoderT", bound=EncoderConfig)


def is_dual(encoder: EncoderConfig) -> bool:
    """Whether an encoder embeds pictures and texts in one space: its `output` selects one part."""
    return hasattr(encoder, "output")


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
