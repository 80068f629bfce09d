"""Picture encoders: EfficientNet-Lite, or any vision model of transformers, pooled to one unit vector per picture.

Shapes: N pictures, B pictures of a batch, S pixels of a side, T tokens or positions, D features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from kcm.assets import resolve
from kcm.encoders.backbone import DTYPES, load_backbone
from kcm.encoders.base import Encoder
from kcm.encoders.config import EncoderConfig
from kcm.encoders.efficientnet import MODEL_TYPE, load_efficientnet
from kcm.encoders.identity import folder_digest
from kcm.errors import AssetError, ConfigError
from kcm.inputs.content import IMAGE, Content, Part
from kcm.inputs.pictures import MAX_PIXELS, squares, with_square

_PREPROCESSOR = "preprocessor_config.json"


class ImageEncoderConfig(EncoderConfig):
    """A frozen vision model by hub id or folder, and at which resolution it sees pictures."""

    reads: ClassVar[frozenset[Part]] = IMAGE
    operational: ClassVar[frozenset[str]] = frozenset({"kind", "model", "batch_size"})  # decide nothing, or by identity

    model: str = Field(description="Id of the model on the hub, an asset, or a local folder.")
    side: int | None = Field(
        default=None, ge=8, le=1024, description="Pixels of a side that the model is shown; null: its own resolution."
    )
    pooling: Literal["mean", "cls"] = Field(
        default="mean", description="Mean over tokens or positions, or the first token."
    )
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Precision of the backbone.")
    max_pixels: int = Field(
        default=MAX_PIXELS, ge=1, description="Width times height beyond which a picture is not decoded."
    )
    batch_size: int = Field(default=32, ge=1, description="Pictures per forward pass.")

    @property
    def name(self) -> str:
        return self.model if self.side is None else f"{self.model}, {self.side} x {self.side}"

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        return ImageEncoder(self, resolve(self.model, assets_dir), device)

    def identity(self, assets_dir: Path) -> str:
        return image_identity(self, resolve(self.model, assets_dir))

    def reader(self, assets_dir: Path) -> Callable[[Content], Content]:
        """Decodes and shrinks the picture to the model's side."""
        side = image_side(self, resolve(self.model, assets_dir))
        return partial(with_square, side=side, max_pixels=self.max_pixels)


class ImageEncoder:
    """A frozen vision model on one device.

    `model_path` is the folder that `kcm.assets.resolve` gives for `config.model`. Pictures are squeezed to a square of
    the model's side, whatever their proportions: nothing of a picture is cut away. Raises AssetError when the folder
    cannot be loaded, ConfigError where the model has no first token to pool.
    """

    reads = ImageEncoderConfig.reads

    def __init__(self, config: ImageEncoderConfig, model_path: Path, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.identity = image_identity(config, model_path)
        preprocessor = _json(model_path / _PREPROCESSOR)
        self._side = image_side(config, model_path)
        self._mean_C11, self._std_C11 = (
            torch.tensor(preprocessor.get(name) or [0.5] * 3, device=self.device).view(3, 1, 1)
            for name in ("image_mean", "image_std")
        )
        model = _load(model_path)
        self._model = model.to(device=self.device, dtype=DTYPES[config.dtype]).eval()
        self.dim = self._forward(np.zeros((1, self._side, self._side, 3), dtype=np.uint8)).shape[1]

    def read(self, content: Content) -> Content:
        return with_square(content, self._side, self.config.max_pixels)

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Unit vectors, float32 [N, D], in the order of the inputs. Raises UnreadableError."""
        pixels_NSSC = squares(inputs, self._side, self.config.max_pixels)
        features_ND = np.empty((len(inputs), self.dim), dtype=np.float32)
        for start in range(0, len(inputs), self.config.batch_size):
            rows = slice(start, start + self.config.batch_size)
            features_ND[rows] = self._forward(pixels_NSSC[rows])
        return features_ND

    @torch.inference_mode()
    def _forward(self, pixels_BSSC: np.ndarray) -> np.ndarray:
        scaled_BCSS = torch.from_numpy(pixels_BSSC).to(self.device).permute(0, 3, 1, 2) / 255
        normal_BCSS = ((scaled_BCSS - self._mean_C11) / self._std_C11).to(DTYPES[self.config.dtype])
        pooled_BD = _pooled(self._model(normal_BCSS), self.config.pooling).float()
        unit_BD: np.ndarray = torch.nn.functional.normalize(pooled_BD, dim=-1).cpu().numpy()
        return unit_BD


def image_identity(config: ImageEncoderConfig, model_path: Path) -> str:
    """Hexadecimal digest over weights, architecture, preprocessing, resolution, pooling and dtype.

    Raises AssetError when the folder lacks a config or weights as safetensors.
    """
    settings = f"side {config.side}\npooling {config.pooling}\ndtype {config.dtype}\nmax_pixels {config.max_pixels}\n"
    return folder_digest(model_path, (_PREPROCESSOR,), settings)


def _pooled(output: Any, pooling: str) -> Tensor:
    """One vector per picture, [B, D], from what a model gives: features, tokens [B, T, D] or a map [B, D, H, W]."""
    hidden: Tensor = output if isinstance(output, Tensor) else output.last_hidden_state
    if pooling == "cls":
        if hidden.ndim != 3:
            raise ConfigError("the model has no tokens, so no first one", where="encoder.pooling", mend="Use mean")
        return hidden[:, 0]
    if hidden.ndim == 2:
        return hidden
    return hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))


def image_side(config: ImageEncoderConfig, model_path: Path) -> int:
    """The resolution that the model is shown: its own is that of its crop where it has one, else of its size.

    Raises AssetError for a folder without a preprocessor, ConfigError for one that does not say.
    """
    if config.side:
        return config.side
    preprocessor = _json(model_path / _PREPROCESSOR)
    for size in (preprocessor.get("crop_size"), preprocessor.get("size")):
        sides = size if isinstance(size, dict) else {"height": size}
        side = sides.get("height") or sides.get("shortest_edge")
        if isinstance(side, int):
            return side
    raise ConfigError("the model does not say its resolution", where=str(model_path), mend="Set encoder.side")


def _load(model_path: Path) -> nn.Module:
    if _json(model_path / "config.json").get("model_type") == MODEL_TYPE:
        return load_efficientnet(model_path)
    model = load_backbone(model_path)
    if getattr(model, "main_input_name", "") != "pixel_values":
        raise AssetError("the model does not read pictures", where=str(model_path), mend="Use kind: text")
    loaded: nn.Module = model
    return loaded


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AssetError(f"cannot load the encoder: {path.name}: {error}", where=str(path.parent)) from None
    return content
