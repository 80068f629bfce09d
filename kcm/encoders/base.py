"""What every frozen encoder offers, whatever it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from kcm.inputs.content import Content, Part, UnreadableError


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

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Features, float32 [N, dim], in the order of the inputs.

        Raises UnreadableError where any of them cannot be read.
        """


def encode_readable(encoder: Encoder, inputs: Sequence[Content]) -> tuple[np.ndarray, dict[int, str]]:
    """Features of the inputs that can be read, in their order, and by position why the others cannot."""
    try:
        return encoder.encode(inputs), {}
    except UnreadableError as error:
        faults = error.faults
    return encoder.encode([content for position, content in enumerate(inputs) if position not in faults]), faults
