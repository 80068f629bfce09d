"""Features of a picture and a text: both vectors of a dual encoder, combined.

Shapes: N inputs, K dimensions of the dual encoder's space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from weakref import WeakValueDictionary

import numpy as np
from pydantic import Field, model_validator

from kcm.assets import resolve
from kcm.config import LocalPath
from kcm.encoders.config import Encoder, NetworkEncoderConfig, Runtime, TowersConfig
from kcm.encoders.dual.alignment import AlignedDual, AlignmentHead, aligned_identity, read_towers
from kcm.encoders.dual.dual import DualEncoder, DualSettings, PretrainedDual, pretrained_reader
from kcm.errors import ConfigError
from kcm.inputs.content import Content, Part, UnreadableError

# By identity, batch size, device and runtime.
_DUALS_IN_USE: WeakValueDictionary[tuple[str, int, str, str | None], DualEncoder] = WeakValueDictionary()

Output = Literal["pair", "image", "text"]

_READS: dict[Output, frozenset[Part]] = {
    "pair": frozenset({"image", "text"}),
    "image": frozenset({"image"}),
    "text": frozenset({"text"}),
}


class ImageTextConfig(NetworkEncoderConfig):
    """A dual encoder over pictures and texts: a pretrained one by id or folder, or two encoders to be aligned.

    A run fits the alignment head before it encodes, and continues with the head's folder. Runtime and precision are
    those of a pretrained model; towers have their own.
    """

    dual: ClassVar[bool] = True
    operational: ClassVar[frozenset[str]] = frozenset({"kind", "model", "towers", "batch_size", "runtime"})

    model: Annotated[str, LocalPath] = Field(
        default="", description="Id or folder of a model such as CLIP or SigLIP; empty with `towers`."
    )
    towers: TowersConfig | None = Field(default=None, description="Two encoders to be aligned; null with `model`.")
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
        """The model's folder, where that is one of a fitted head."""
        folder = Path(self.model).expanduser()
        return folder if self.model and read_towers(folder) is not None else None

    def reader(self, assets_dir: Path) -> Callable[[Content], Content]:
        """Decodes the picture as the model, or the tower of pictures, wants it."""
        if "image" not in self.reads:
            return lambda content: content
        folder = self._folder(assets_dir)
        towers = read_towers(folder)
        return towers.image.reader(assets_dir) if towers else pretrained_reader(folder)

    def of_part(self, part: Part) -> ImageTextConfig:
        """The same dual encoder, of one part alone."""
        return self.model_copy(update={"output": part})

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        """See `EncoderConfig`; encoders of other parts of the same model share it."""
        return ImageTextEncoder(self, self._dual(assets_dir, device), self.identity(assets_dir))

    def identity(self, assets_dir: Path) -> str:
        return f"{self._dual_identity(assets_dir)}-{self.output}"

    @property
    def in_use(self) -> Runtime | None:
        """None where towers have their own."""
        return None if self.towers or self.fitted_head else super().in_use

    def resolved(self, assets_dir: Path, device: str = "cpu") -> Self:
        return self if self.in_use is None else super().resolved(assets_dir, device)

    @property
    def _settings(self) -> DualSettings:
        return DualSettings(self.max_length, self.batch_size, self.precision)

    def _dual_identity(self, assets_dir: Path) -> str:
        folder = self._folder(assets_dir)
        if towers := read_towers(folder):
            return aligned_identity(folder, *(each.identity(assets_dir) for each in (towers.image, towers.text)))
        return self._settings.identity(folder)

    def _dual(self, assets_dir: Path, device: str) -> DualEncoder:
        key = self._dual_identity(assets_dir), self.batch_size, device, self.in_use
        dual = _DUALS_IN_USE.get(key)
        if dual is None:
            _DUALS_IN_USE[key] = dual = self._load_dual(assets_dir, device)
        return dual

    def _load_dual(self, assets_dir: Path, device: str) -> DualEncoder:
        folder = self._folder(assets_dir)
        if towers := read_towers(folder):
            image, text = (each.build(assets_dir, device) for each in (towers.image, towers.text))
            return AlignedDual(image, text, AlignmentHead.load(folder))
        exports_dir = assets_dir if self.is_exported(device) else None
        return PretrainedDual(folder, self._settings, device=device, exports_dir=exports_dir)

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
