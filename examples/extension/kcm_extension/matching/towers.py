"""Two encoders, of pictures and of texts, as one dual encoder: their vectors are mapped into one space by a head.

`python -m kcm_extension.matching.align CONFIG` fits the head. Use it if no pretrained dual encoder can be had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from kcm.assets.manifest import folder_digest
from kcm.config import LocalPath
from kcm.encoders import Encoder, EncoderConfig
from kcm.encoders.config import is_dual
from kcm.encoders.image_text import Output, PairEncoder
from kcm.errors import AssetError
from kcm.inputs.content import IMAGE, TEXT, Content, Part

from .head import WEIGHTS, AlignmentHead


class TowersConfig(EncoderConfig):
    """Two frozen encoders, and the head that aligns them."""

    operational: ClassVar[frozenset[str]] = frozenset({"kind", "image", "text", "share", "head", "batch_size"})

    image: EncoderConfig = Field(description="Encoder of the pictures.")
    text: EncoderConfig = Field(description="Encoder of the texts.")
    head: Annotated[str, LocalPath] = Field(description="Folder of the fitted head.")
    share: float = Field(0.6, gt=0, lt=1, description="Share of the train groups that the head is fitted on.")
    output: Output = Field("pair", description="Features of the pair, or one part's vector.")

    @property
    def reads(self) -> frozenset[Part]:
        return IMAGE | TEXT if self.output == "pair" else frozenset({self.output})

    @property
    def fitted_head(self) -> Path:
        return Path(self.head).expanduser()

    def aligned(self, folder: Path) -> Self:
        return self.with_settings(head=str(folder))

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        identity = self.identity(assets_dir)
        if self.output == "pair":
            image, text = (self.with_settings(output=part).build(assets_dir, device) for part in (*IMAGE, *TEXT))
            return PairEncoder(image, text, identity)
        head = AlignmentHead.load(self.fitted_head)
        encoder, project = (self.image, head.images) if self.output == "image" else (self.text, head.texts)
        return Tower(encoder.build(assets_dir, device), project, head.text.out_features, identity)

    def identity(self, assets_dir: Path) -> str:
        if not (self.fitted_head / WEIGHTS).is_file():
            hint = "Run `python -m kcm_extension.matching.align CONFIG` first"
            raise AssetError("no alignment head has been fitted", where=str(self.fitted_head), hint=hint)
        sides = (tower.identity(assets_dir) for tower in (self.image, self.text))
        parts = (folder_digest(self.fitted_head, "alignment head\n"), *sides)
        return f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}-{self.output}"

    @model_validator(mode="after")
    def _towers_read_their_part(self) -> Self:
        for part, tower in (("image", self.image), ("text", self.text)):
            if tower.reads != {part} or is_dual(tower):
                raise ValueError(f"{part}: an encoder of kind {tower.kind!r} does not read the {part} alone")
        return self


class Tower:
    """An encoder of one part, followed by its side of the head."""

    def __init__(self, encoder: Encoder, project: Callable[[Tensor], Tensor], dim: int, identity: str) -> None:
        self._encoder, self._project = encoder, project
        self.read, self.reads, self.dim, self.identity = encoder.read, encoder.reads, dim, identity

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Unit vectors, float32 [N, K]. Raises UnreadableError."""
        return self._project(torch.from_numpy(self._encoder.encode(inputs))).numpy()
