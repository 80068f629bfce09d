"""An encoder that counts letters: a feature for each of the alphabet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kcm.encoders import Encoder, EncoderConfig
from kcm.inputs.content import TEXT, Content, Part


class LettersConfig(EncoderConfig):
    """How often each letter occurs in a text."""

    reads: ClassVar[frozenset[Part]] = TEXT

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        return Letters()

    def identity(self, assets_dir: Path) -> str:
        return Letters.identity


class Letters:
    dim, identity, reads = len(ascii_lowercase), "letters", TEXT

    def read(self, content: Content) -> Content:
        return content

    def encode(self, inputs: Sequence[Content]) -> NDArray[np.float32]:
        counts = [[content.text.lower().count(letter) for letter in ascii_lowercase] for content in inputs]
        return np.array(counts, dtype=np.float32).reshape(-1, self.dim) / 10
