"""Pairs of picture and text as features: what a dual encoder makes of both, side by side.

Shapes: N inputs, K dimensions of the dual encoder's space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from kcm.config import Config
from kcm.encoders.alignment import AlignmentConfig
from kcm.encoders.dual import DualEncoder
from kcm.encoders.single import SingleConfig
from kcm.inputs.content import Content, Part, UnreadableError
from kcm.inputs.pictures import MAX_PIXELS

Output = Literal["pair", "image", "text"]

_READS: dict[Output, frozenset[Part]] = {
    "pair": frozenset({"image", "text"}),
    "image": frozenset({"image"}),
    "text": frozenset({"text"}),
}


class TowersConfig(Config):
    """Two frozen encoders, and how a head is fitted that aligns them; on the match rows of the train split alone."""

    image: SingleConfig = Field(description="Encoder of the pictures.")
    text: SingleConfig = Field(description="Encoder of the texts.")
    share: float = Field(
        0.6,
        gt=0,
        lt=1,
        description="Share of the train groups that the head is fitted on; nothing else learns from them.",
    )
    fit: AlignmentConfig = AlignmentConfig()

    @model_validator(mode="after")
    def _towers_read_their_part(self) -> TowersConfig:
        parts: tuple[Part, ...] = ("image", "text")
        for part in parts:
            tower = getattr(self, part)
            if tower.reads != {part}:
                raise ValueError(f"{part}: an encoder of kind {tower.kind!r} does not read the {part} alone")
        return self


class ImageTextConfig(Config):
    """A dual encoder over pictures and texts: a pretrained one by id or folder, or two encoders to be aligned.

    A run fits what is to be aligned before it encodes anything, and goes on with the folder of the fitted head.
    """

    operational: ClassVar[frozenset[str]] = frozenset({"kind", "model", "towers", "batch_size"})  # or by the identity

    kind: Literal["image_text"] = "image_text"
    model: str = Field(default="", description="Id or folder of a model such as CLIP or SigLIP; empty with `towers`.")
    towers: TowersConfig | None = Field(default=None, description="Two encoders to be aligned; null with `model`.")
    output: Output = Field(default="pair", description="Features of the pair, or one part's vector.")
    max_length: int = Field(default=64, ge=3, description="Tokens of a text beyond this number are cut off.")
    max_pixels: int = Field(
        default=MAX_PIXELS, ge=1, description="Width times height beyond which a picture is not decoded."
    )
    batch_size: int = Field(default=64, ge=1, description="Inputs per forward pass.")

    @property
    def reads(self) -> frozenset[Part]:
        """The parts of a content that it reads."""
        return _READS[self.output]

    @property
    def name(self) -> str:
        """What people call the encoder."""
        return self.model or "alignment head"

    def of_texts(self) -> ImageTextConfig:
        """The same dual encoder, of texts alone."""
        return self.model_copy(update={"output": "text"})

    @model_validator(mode="after")
    def _one_origin(self) -> ImageTextConfig:
        if bool(self.model) == (self.towers is not None):
            raise ValueError("give either `model` or `towers`")
        return self


class ImageTextEncoder:
    """A frozen dual encoder as an encoder of rows."""

    def __init__(self, config: ImageTextConfig, dual: DualEncoder, identity: str) -> None:
        self.config = config
        self.reads, self.identity = config.reads, identity
        self._dual, self._output = dual, config.output
        self.dim = dual.dim + 1 if config.output == "pair" else dual.dim

    def read(self, content: Content) -> Content:
        """The content with the pixels of its picture, where pictures are read. Raises PictureError."""
        return content if self._output == "text" else self._dual.read(content)

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Float32 [N, K + 1] for pairs, see `pair_features`; [N, K] for one part. Raises UnreadableError.

        A part that several inputs share is embedded once.
        """
        if self._output == "image":
            return _distinct(inputs, lambda content: content.image, self._dual.images)
        if self._output == "text":
            return _distinct(inputs, lambda content: content.text, self._dual.texts)
        images_NK = _distinct(inputs, lambda content: content.image, self._dual.images)
        return pair_features(images_NK, _distinct(inputs, lambda content: content.text, self._dual.texts))

    def of_texts(self, identity: str) -> ImageTextEncoder:
        """The same model as an encoder of texts, loaded once for both."""
        return ImageTextEncoder(self.config.of_texts(), self._dual, identity)


def pair_features(images_NK: np.ndarray, texts_NK: np.ndarray) -> np.ndarray:
    """Features of N pairs, float32 [N, K + 1]: the products of their coordinates, then the sum of these, the cosine.

    Products are scaled by sqrt(K), so that each has the scale of the cosine.
    """
    products_NK = images_NK * texts_NK
    cosine_N1 = products_NK.sum(axis=1, keepdims=True)
    scaled_NK = products_NK * np.sqrt(products_NK.shape[1], dtype=np.float32)
    return np.concatenate([scaled_NK, cosine_N1], axis=1, dtype=np.float32)


def _distinct(
    inputs: Sequence[Content], part: Callable[[Content], object], embed: Callable[[Sequence[Content]], np.ndarray]
) -> np.ndarray:
    """`embed` of every input, once for those that share the part. Raises UnreadableError that names all of these."""
    numbers: dict[object, int] = {}
    representatives: list[Content] = []
    index = np.empty(len(inputs), dtype=np.intp)
    for position, content in enumerate(inputs):
        if part(content) not in numbers:
            numbers[part(content)] = len(representatives)
            representatives.append(content)
        index[position] = numbers[part(content)]
    try:
        return embed(representatives)[index]
    except UnreadableError as error:
        faults = {
            position: error.faults[number] for position, number in enumerate(index.tolist()) if number in error.faults
        }
        raise UnreadableError(faults) from None
