"""The interface of frozen encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from kcm.inputs.content import TEXT, Content, Part, PartError


class Encoder(Protocol):
    """A frozen encoder. `identity` names what decides its output, such as weights, tokenizer, pooling and dtype."""

    @property
    def dim(self) -> int:
        """Length of a feature vector."""

    @property
    def identity(self) -> str:
        """Digest that two encoders share only if they encode alike."""

    @property
    def reads(self) -> frozenset[Part]:
        """The parts of a content that it reads."""

    def read(self, content: Content) -> Content:
        """The content with its picture decoded, so that `encode` need not; itself where there is nothing to decode.

        Raises PartError where it cannot be read.
        """

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Features, float32 [N, dim], in the order of the inputs, read or not.

        Raises UnreadableError where any of them cannot be read.
        """


def encode_readable(encoder: Encoder, inputs: Sequence[Content]) -> tuple[np.ndarray, dict[int, str]]:
    """Features of the readable inputs, in order, and the faults of the others by position."""
    if encoder.reads <= TEXT:  # any text can be read
        return encoder.encode(inputs), {}
    readable: list[Content] = []
    faults: dict[int, str] = {}
    for position, content in enumerate(inputs):
        try:
            readable.append(encoder.read(content))
        except PartError as error:
            faults[position] = str(error)
    return encoder.encode(readable), faults
