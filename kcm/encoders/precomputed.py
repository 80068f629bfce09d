"""Vectors that come with the rows, from a feature store for example: nothing is encoded here.

Shapes: N rows, D numbers of a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from kcm.encoders.config import Encoder, EncoderConfig, EncoderT, Engine
from kcm.errors import ConfigError
from kcm.inputs.content import VECTOR, Content, Part, PartError
from kcm.inputs.pictures import read_all


class PrecomputedConfig(EncoderConfig):
    """Vectors of the rows: one column with a list of numbers, or one column per number."""

    reads: ClassVar[frozenset[Part]] = VECTOR
    engine: ClassVar[Engine] = "numpy"
    # These have no effect on the vectors, or are determined by the rows.
    operational: ClassVar[frozenset[str]] = frozenset({"kind", "batch_size", "dim"})

    column: str | None = Field(default=None, description="Column with a list of numbers, equally long in all rows.")
    columns: tuple[str, ...] = Field(
        default=(),
        description="Columns with one number each, by name or by a pattern such as f_*; in table order.",
    )
    dim: int | None = Field(default=None, ge=1, description="Numbers per vector; null: as many as in the first row.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.column is None) == (not self.columns):
            raise ValueError("give either `column`, with a list of numbers, or `columns`, with a number each")
        return self

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        """Loads nothing. Raises ConfigError if `dim` is unknown."""
        return PrecomputedEncoder(self)

    def identity(self, assets_dir: Path) -> str:
        """A digest of the vectors' origin; their values are part of the rows."""
        return hashlib.sha256("\0".join(("precomputed", *vector_columns(self))).encode()).hexdigest()


class PrecomputedEncoder:
    """Returns the vectors of its inputs."""

    reads = PrecomputedConfig.reads

    def __init__(self, config: PrecomputedConfig) -> None:
        if config.dim is None:
            raise ConfigError("the length of the vectors is not known", where="encoder.dim", hint="Give their length")
        self.dim, self.identity = config.dim, config.identity(Path())

    def read(self, content: Content) -> Content:
        """The content. Raises PartError for a vector that is missing, of the wrong length, or not finite."""
        if fault := vector_fault(content, self.dim):
            raise PartError(fault)
        return content

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Float32 [N, D], unchanged, without scaling. Raises UnreadableError."""
        vectors = [content.vector for content in read_all(inputs, self.read)]
        return np.array(vectors, dtype=np.float32).reshape(-1, self.dim)


def vector_fault(content: Content, dim: int | None) -> str:
    """The fault of a content's vector, empty if there is none; `dim` is None if unknown."""
    if content.vector is None:
        return "no vector"
    if dim is not None and content.vector.shape != (dim,):
        return f"the vector has {content.vector.size} numbers instead of {dim}"
    return "" if np.isfinite(content.vector).all() else "the vector holds a number that is not finite"


def vector_columns(encoder: EncoderConfig) -> tuple[str, ...]:
    """Names, or patterns such as f_*, of the columns of a row's vector; empty if `encoder` reads none."""
    if "vector" not in encoder.reads:
        return ()
    column = getattr(encoder, "column", None)
    return getattr(encoder, "columns", ()) if column is None else (column,)


def with_dim(encoder: EncoderT, dim: int) -> EncoderT:
    """The encoder with the length of the rows' vectors; unchanged if it reads none."""
    return encoder.with_settings(dim=dim) if vector_columns(encoder) else encoder
