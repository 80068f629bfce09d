"""Pixels of a shrunk picture as features, without a model.

Shapes: N pictures, S pixels of a side, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from kcm.encoders.config import Encoder, EncoderConfig, Engine
from kcm.inputs.content import IMAGE, Content, Part
from kcm.inputs.pictures import MAX_PIXELS, squares, with_square

_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # luma, ITU-R BT.601


class PixelsConfig(EncoderConfig):
    """Shrunk pictures: each pixel and colour is a feature."""

    reads: ClassVar[frozenset[Part]] = IMAGE
    engine: ClassVar[Engine] = "numpy"
    operational: ClassVar[frozenset[str]] = frozenset({"kind", "batch_size"})  # no effect, or part of the identity

    side: int = Field(default=24, ge=1, le=256, description="Pixels per side.")
    color: Literal["rgb", "grey"] = Field(default="rgb", description="Three features per pixel, or one.")

    @property
    def pixel_grid(self) -> tuple[int, int, int]:
        """Rows, columns and colours, innermost last: `kcm explain` draws the features as a picture."""
        return self.side, self.side, 3 if self.color == "rgb" else 1

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        """Loads nothing."""
        return PixelsEncoder(self)

    def identity(self, assets_dir: Path) -> str:
        """A digest of everything that determines the features; there are no weights."""
        return hashlib.sha256(f"pixels {self.side} {self.color} {MAX_PIXELS}".encode()).hexdigest()


class PixelsEncoder:
    """Unit vectors of contrasts: the picture's mean is subtracted from its pixels, then their length is scaled to 1.

    This is global contrast normalisation (Coates, Ng and Lee, AISTATS 2011, section 3.1); a blank picture stays zero.
    """

    reads = PixelsConfig.reads

    def __init__(self, config: PixelsConfig) -> None:
        self.config, self.identity = config, config.identity(Path())
        self.dim = config.side**2 * (3 if config.color == "rgb" else 1)

    def read(self, content: Content) -> Content:
        """Decodes and shrinks the picture."""
        return with_square(content, self.config.side)

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Float32 [N, D] by rows of pixels, colours innermost. Raises UnreadableError."""
        pixels_NSSC = squares(inputs, self.config.side).astype(np.float32)
        if self.config.color == "grey":
            pixels_NSSC = pixels_NSSC @ _GREY
        features_ND = pixels_NSSC.reshape(len(inputs), self.dim)
        features_ND = features_ND - features_ND.mean(axis=1, keepdims=True)
        length_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
        return np.divide(features_ND, length_N1, out=np.zeros_like(features_ND), where=length_N1 > 1e-3)
