"""What every frozen encoder offers, and how one is configured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

import numpy as np
from pydantic import Field

from kcm.config import Config

InputT = TypeVar("InputT", contravariant=True)


class EncoderConfig(Config):
    """A frozen backbone by hub id or folder, and how its token vectors become one vector."""

    model: str = Field(description="Id of the model on the hub, or a local folder.")
    pooling: Literal["mean", "cls"] = Field(
        default="mean", description="Mean of the token vectors, or the first of them."
    )
    max_length: int = Field(default=128, ge=3, description="Tokens beyond this number are cut off.")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Precision of the backbone.")
    batch_size: int = Field(default=64, ge=1, description="Inputs per forward pass.")


class Encoder(Protocol[InputT]):
    """A frozen encoder. `identity` names what decides its output: weights, tokenizer, pooling, length, dtype."""

    @property
    def dim(self) -> int:
        """Length of a feature vector."""

    @property
    def identity(self) -> str:
        """Digest that two encoders share only if they encode alike."""

    def encode(self, inputs: Sequence[InputT]) -> np.ndarray:
        """Unit vectors, float32 [N, dim], in the order of the inputs."""
