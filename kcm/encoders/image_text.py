"""Dual encoders: pictures and texts as unit vectors of one space, and features of a pair of both.

Shapes: N inputs, B inputs of a batch, K dimensions of the common space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from kcm.assets.manifest import folder_digest
from kcm.assets.resolve import resolve
from kcm.config import LocalPath
from kcm.encoders.config import Arrays, Encoder
from kcm.encoders.network_encoder import NetworkEncoder
from kcm.encoders.pretrained import load_image_processor, load_tokenizer, load_whole
from kcm.encoders.runtime import NetworkEncoderConfig
from kcm.encoders.torch_network import Exportable
from kcm.errors import AssetError, ConfigError
from kcm.inputs.content import IMAGE, PROBE, TEXT, Content, Part, UnreadableError, contents
from kcm.inputs.pictures import MAX_PIXELS, upright

Output = Literal["pair", "image", "text"]


class ImageTextConfig(NetworkEncoderConfig):
    """A pretrained dual encoder over pictures and texts, by hub id or folder."""

    operational: ClassVar[frozenset[str]] = frozenset({"kind", "model", "batch_size", "runtime"})

    model: Annotated[str, LocalPath] = Field(description="Id or folder of a model such as CLIP or SigLIP.")
    output: Output = Field(default="pair", description="Features of the pair, or one part's vector.")
    max_length: int = Field(default=64, ge=3, description="Tokens of a text beyond this number are cut off.")

    @property
    def reads(self) -> frozenset[Part]:
        """The parts of a content that it reads."""
        return IMAGE | TEXT if self.output == "pair" else frozenset({self.output})

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        """See `EncoderConfig`; a pair shares its two sides with single-part encoders of the same model."""
        if self.output == "pair":
            image, text = (self.with_settings(output=part).build(assets_dir, device) for part in (*IMAGE, *TEXT))
            return PairEncoder(image, text, self.identity(assets_dir))
        folder = resolve(self.model, assets_dir)
        return (ImageTower if self.output == "image" else TextTower)(self, folder, assets_dir, device)

    def identity(self, assets_dir: Path) -> str:
        digest = folder_digest(resolve(self.model, assets_dir), f"dual {self.max_length} {MAX_PIXELS}\n")
        return f"{digest}-{self.output}"


class ImageTower(NetworkEncoder):
    """The picture side of a dual encoder of transformers, such as CLIP or SigLIP, with its own image processor.

    Raises AssetError if the folder holds no such model.
    """

    def __init__(self, config: ImageTextConfig, folder: Path, assets_dir: Path, device: str) -> None:
        self._folder, self._processor = folder, load_image_processor(folder)
        super().__init__(config, assets_dir, device)

    def read(self, content: Content) -> Content:
        """The content with its picture as the image processor returns it."""
        if content.pixels is not None:
            return content
        pixels = self._processor(images=[upright(content.image)], return_tensors="pt")["pixel_values"]
        return replace(content, pixels=pixels[0].numpy())

    def arrays(self, inputs: Sequence[Content]) -> Arrays:
        return {"pixel_values": np.array([content.pixels for content in inputs])}

    def exportable(self) -> Exportable:
        pixels = self.read(PROBE).pixels
        assert pixels is not None
        levels = np.random.default_rng(0).normal(size=(5, *pixels.shape)).astype(np.float32)
        probes = [{"pixel_values": levels[:4]}, {"pixel_values": levels[4:]}]
        module = _ImageNetwork(_model(self._folder, excluded="text_model"))
        return Exportable(module, probes, {"pixel_values": {0: "batch"}})


class TextTower(NetworkEncoder):
    """The text side of a dual encoder of transformers, with its own tokenizer.

    Raises AssetError if the folder holds no such model, ConfigError for a `max_length` above the model's limit.
    """

    def __init__(self, config: ImageTextConfig, folder: Path, assets_dir: Path, device: str) -> None:
        self._folder, self._tokenizer, self._max_length = folder, load_tokenizer(folder), config.max_length
        super().__init__(config, assets_dir, device)

    def arrays(self, inputs: Sequence[Content]) -> Arrays:
        # SigLIP was trained on texts of one length; padding to it changes nothing for models that have a mask.
        tokens = self._tokenizer(
            [content.text for content in inputs],
            padding="max_length",
            truncation=True,
            max_length=self._max_length,
            return_tensors="np",
        )
        return {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask") if name in tokens}

    def exportable(self) -> Exportable:
        model = _model(self._folder, excluded="vision_model")
        longest = model.config.text_config.max_position_embeddings
        if self._max_length > longest:
            raise ConfigError(
                f"max_length = {self._max_length}, but the model takes {longest} tokens", where="encoder.max_length"
            )
        batches = ["a picture", "a photograph of two dogs on a beach", "!"], ["a cat"]
        probes = [self.arrays(contents(texts)) for texts in batches]
        return Exportable(_TextNetwork(model), probes, {name: {0: "batch"} for name in probes[0]})


class _ImageNetwork(nn.Module):
    """The image tower of a dual encoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Unit vectors, float32 [B, K]."""
        return _unit(self.model.get_image_features(pixel_values=pixel_values))


class _TextNetwork(nn.Module):
    """The text tower of a dual encoder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Unit vectors, float32 [B, K]."""
        mask_argument = {} if attention_mask is None else {"attention_mask": attention_mask}
        return _unit(self.model.get_text_features(input_ids=input_ids, **mask_argument))


def _model(model_path: Path, *, excluded: str) -> Any:
    """The model of a folder without the network of its other side, which would only take memory."""
    model = load_whole(model_path)
    if not hasattr(model, "get_image_features"):
        raise AssetError(
            f"a {model.config.model_type} model is no dual encoder",
            where=str(model_path),
            hint="Name a model such as CLIP or SigLIP",
        )
    if hasattr(model, excluded):
        setattr(model, excluded, None)
    return model.float().eval()


def _unit(embedded: Any) -> Tensor:
    """Unit vectors; transformers gives a tensor or an output around one, by version."""
    vectors_BK: Tensor = getattr(embedded, "pooler_output", embedded)
    return torch.nn.functional.normalize(vectors_BK, dim=-1)


class PairEncoder:
    """Pairs of a picture and a text by the two sides of a dual encoder."""

    reads = IMAGE | TEXT

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
