"""Features of a picture and a text: both vectors of a dual encoder, combined.

Shapes: N inputs, K dimensions of the dual encoder's space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from kcm.assets import BundleName, folder_digest, resolve
from kcm.config import LocalPath
from kcm.encoders.config import Encoder, NetworkEncoderConfig, Runtime, TowersConfig
from kcm.encoders.dual.alignment import AlignedTower, AlignmentHead, read_towers
from kcm.encoders.dual.dual import ImageTower, TextTower, pretrained_reader
from kcm.errors import ConfigError
from kcm.inputs.content import IMAGE, TEXT, Content, Part, UnreadableError
from kcm.inputs.pictures import MAX_PIXELS

Output = Literal["pair", "image", "text"]

_READS: dict[Output, frozenset[Part]] = {
    "pair": IMAGE | TEXT,
    "image": IMAGE,
    "text": TEXT,
}


class ImageTextConfig(NetworkEncoderConfig):
    """A dual encoder over pictures and texts: a pretrained one by id or folder, or two encoders to be aligned.

    A run fits the alignment head before it encodes, and continues with the head's folder. Runtime and precision apply
    to a pretrained model; towers have their own.
    """

    dual: ClassVar[bool] = True
    operational: ClassVar[frozenset[str]] = frozenset({"kind", "model", "towers", "batch_size", "runtime"})

    model: Annotated[str, LocalPath] = Field(
        default="", description="Id or folder of a model such as CLIP or SigLIP; empty with `towers`."
    )
    towers: TowersConfig | None = Field(default=None, description="Two encoders to align; null with `model`.")
    output: Output = Field(default="pair", description="Features of the pair, or one part's vector.")
    max_length: int = Field(default=64, ge=3, description="Tokens of a text beyond this number are cut off.")

    @property
    def reads(self) -> frozenset[Part]:
        """The parts of a content that it reads."""
        return _READS[self.output]

    @property
    def name(self) -> str:
        return self.model or "alignment head"

    @property
    def to_align(self) -> TowersConfig | None:
        """The towers, as long as their head is not fitted."""
        return self.towers

    def aligned(self, folder: Path) -> ImageTextConfig:
        """The fitted head in place of its towers."""
        return self.model_copy(update={"model": str(folder), "towers": None})

    @property
    def fitted_head(self) -> Path | None:
        """The model's folder, if it is the folder of a fitted head."""
        if isinstance(self.model, BundleName) and not self.model.lies_within:
            return None
        folder = Path(self.model).expanduser()
        return folder if self.model and self._towers_in(folder) is not None else None

    def reader(self, assets_dir: Path) -> Callable[[Content], Content]:
        """Decodes the picture as the model, or the picture tower, expects it."""
        if "image" not in self.reads:
            return lambda content: content
        folder = self._folder(assets_dir)
        towers = self._towers_in(folder)
        return towers.image.reader(assets_dir) if towers else pretrained_reader(folder)

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        """See `EncoderConfig`; a pair shares its two sides with single-part encoders of the same model."""
        if self.output == "pair":
            image, text = (self.with_settings(output=part).build(assets_dir, device) for part in (*IMAGE, *TEXT))
            return PairEncoder(image, text, self.identity(assets_dir))
        folder, is_image = self._folder(assets_dir), self.output == "image"
        if towers := self._towers_in(folder):
            head = AlignmentHead.load(folder)
            encoder, project = (towers.image, head.images) if is_image else (towers.text, head.texts)
            dim, identity = head.text.out_features, self.identity(assets_dir)
            return AlignedTower(encoder.build(assets_dir, device), project, dim, identity)
        if is_image:
            return ImageTower(self, folder, assets_dir, device)
        return TextTower(self, folder, assets_dir, device, max_length=self.max_length)

    def identity(self, assets_dir: Path) -> str:
        folder = self._folder(assets_dir)
        if towers := self._towers_in(folder):
            sides = (tower.identity(assets_dir) for tower in (towers.image, towers.text))
            parts = (folder_digest(folder, "alignment head\n"), *sides)
            digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        else:
            digest = folder_digest(folder, f"dual {self.max_length} {MAX_PIXELS} {self.precision}\n")
        return f"{digest}-{self.output}"

    @property
    def in_use(self) -> Runtime | None:
        """None, because towers have their own."""
        return None if self.towers or self.fitted_head else super().in_use

    def _towers_in(self, folder: Path) -> TowersConfig | None:
        return read_towers(folder, self.model.folder if isinstance(self.model, BundleName) else None)

    def _folder(self, assets_dir: Path) -> Path:
        if self.towers is not None:
            raise ConfigError(
                "the alignment head of these towers has not been fitted",
                where="encoder.towers",
                hint="`kcm run` fits it; name the folder of the fitted head as `model`",
            )
        return resolve(self.model, assets_dir)

    @model_validator(mode="after")
    def _one_origin(self) -> ImageTextConfig:
        if bool(self.model) == (self.towers is not None):
            raise ValueError("give either `model` or `towers`")
        if self.towers and (self.runtime, self.precision) != ("auto", "float32"):
            raise ValueError("give runtime and precision to the towers")
        return self


class PairEncoder:
    """Pairs of a picture and a text by the two sides of a dual encoder."""

    reads = _READS["pair"]

    def __init__(self, image: Encoder, text: Encoder, identity: str) -> None:
        self._image, self._text = image, text
        self.read, self.dim, self.identity = image.read, image.dim + 1, identity

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Float32 [N, K + 1], see `pair_features`. Raises UnreadableError.

        A part that several inputs share is embedded once.
        """
        images_NK = _distinct(inputs, lambda content: content.image, self._image.encode)
        return pair_features(images_NK, _distinct(inputs, lambda content: content.text, self._text.encode))


def pair_features(images_NK: np.ndarray, texts_NK: np.ndarray) -> np.ndarray:
    """Features of N pairs, float32 [N, K + 1]: the products of the coordinates, then their sum, the cosine.

    Products are scaled by sqrt(K), so that each has the scale of the cosine.
    """
    products_NK = images_NK * texts_NK
    cosine_N1 = products_NK.sum(axis=1, keepdims=True)
    scaled_NK = products_NK * np.sqrt(products_NK.shape[1], dtype=np.float32)
    return np.concatenate([scaled_NK, cosine_N1], axis=1, dtype=np.float32)


def _distinct(
    inputs: Sequence[Content], part: Callable[[Content], object], embed: Callable[[Sequence[Content]], np.ndarray]
) -> np.ndarray:
    """`embed` of every input, once for inputs that share the part. Raises UnreadableError that names all of these."""
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
