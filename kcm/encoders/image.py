"""Picture encoders: EfficientNet-Lite, or any vision model of transformers, pooled to one unit vector per picture.

Shapes: N pictures, B pictures of a batch, S pixels per side, T tokens or positions, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from kcm.assets.manifest import folder_digest
from kcm.assets.resolve import resolve
from kcm.config import LocalPath
from kcm.encoders.config import Arrays, Encoder, read_json
from kcm.encoders.efficientnet import MODEL_TYPE, load_efficientnet
from kcm.encoders.network_encoder import NetworkEncoder
from kcm.encoders.pretrained import load_backbone
from kcm.encoders.runtime import NetworkEncoderConfig
from kcm.encoders.torch_network import Exportable
from kcm.errors import AssetError, ConfigError
from kcm.inputs.content import IMAGE, Content, Part
from kcm.inputs.pictures import MAX_PIXELS, with_square

_PREPROCESSOR = "preprocessor_config.json"
_PIXELS = "pixels"


class ImageEncoderConfig(NetworkEncoderConfig):
    """A frozen vision model by hub id or folder, and the resolution at which it sees pictures."""

    reads: ClassVar[frozenset[Part]] = IMAGE

    model: Annotated[str, LocalPath] = Field(description="Id of the model on the hub, an asset, or a local folder.")
    side: int | None = Field(
        default=None, ge=8, le=1024, description="Pixels per side of the model's input; null: its own resolution."
    )
    pooling: Literal["mean", "cls"] = Field(
        default="mean", description="Mean over tokens or positions, or the first token."
    )
    batch_size: int = Field(default=32, ge=1, description="Pictures per forward pass.")

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        return ImageEncoder(self, assets_dir, device)

    def identity(self, assets_dir: Path) -> str:
        settings = f"side {self.side}\npooling {self.pooling}\nmax_pixels {MAX_PIXELS}\n"
        return folder_digest(resolve(self.model, assets_dir), settings)


class ImageEncoder(NetworkEncoder):
    """A frozen vision model on one device.

    Pictures are squeezed to a square of the model's side, whatever their proportions; nothing is cropped. Raises
    AssetError if the folder cannot be loaded, and ConfigError if the model has no first token to pool.
    """

    config: ImageEncoderConfig

    def __init__(self, config: ImageEncoderConfig, assets_dir: Path, device: str = "cpu") -> None:
        self._folder = resolve(config.model, assets_dir)
        self._side = image_side(config, self._folder)
        super().__init__(config, assets_dir, device)

    def read(self, content: Content) -> Content:
        """Decodes and shrinks the picture to the model's side."""
        return with_square(content, self._side)

    def arrays(self, inputs: Sequence[Content]) -> Arrays:
        return {_PIXELS: np.array([content.pixels for content in inputs])}

    def exportable(self) -> Exportable:
        side, preprocessor = self._side, read_json(self._folder / _PREPROCESSOR)
        mean, std = (preprocessor.get(name) or [0.5] * 3 for name in ("image_mean", "image_std"))
        backbone = _load(self._folder).float()
        levels = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), dtype=np.uint8)
        probes = [{_PIXELS: levels[:4]}, {_PIXELS: levels[4:]}]
        return Exportable(_ImageNetwork(backbone, mean, std, self.config), probes, {_PIXELS: {0: "batch"}})


class _ImageNetwork(nn.Module):
    """A backbone with its preprocessing and pooling: the unit vector of each picture of a batch."""

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float], config: ImageEncoderConfig):
        super().__init__()
        self.backbone, self.pooling = backbone, config.pooling
        self.register_buffer("mean_C11", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std_C11", torch.tensor(std).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Unit vectors, float32 [B, D], from bytes [B, S, S, 3]."""
        scaled_BCSS = pixels.permute(0, 3, 1, 2).float() / 255
        normal_BCSS = (scaled_BCSS - self.mean_C11) / self.std_C11
        pooled_BD = _pool(self.backbone(normal_BCSS), self.pooling)
        return torch.nn.functional.normalize(pooled_BD, dim=-1)


def _pool(output: Any, pooling: str) -> Tensor:
    """One vector per picture [B, D] from a model's output: features, tokens [B, T, D] or a map [B, D, H, W]."""
    hidden: Tensor = output if isinstance(output, Tensor) else output.last_hidden_state
    if pooling == "cls":
        if hidden.ndim != 3:
            raise ConfigError("the model has no tokens, so no first one", where="encoder.pooling", hint="Use mean")
        return hidden[:, 0]
    if hidden.ndim == 2:
        return hidden
    return hidden.mean(1) if hidden.ndim == 3 else hidden.mean((2, 3))


def image_side(config: ImageEncoderConfig, model_path: Path) -> int:
    """The resolution of the model: its crop size if it has one, or else its size.

    Raises AssetError for a folder without a preprocessor, and ConfigError if the preprocessor does not define it.
    """
    if config.side:
        return config.side
    preprocessor = read_json(model_path / _PREPROCESSOR)
    for size in (preprocessor.get("crop_size"), preprocessor.get("size")):
        sides = size if isinstance(size, dict) else {"height": size}
        side = sides.get("height") or sides.get("shortest_edge")
        if isinstance(side, int):
            return side
    raise ConfigError("the model does not say its resolution", where=str(model_path), hint="Set encoder.side")


def _load(model_path: Path) -> nn.Module:
    if read_json(model_path / "config.json").get("model_type") == MODEL_TYPE:
        return load_efficientnet(model_path)
    model = load_backbone(model_path)
    if getattr(model, "main_input_name", "") != "pixel_values":
        raise AssetError("the model does not read pictures", where=str(model_path), hint="Use kind: text")
    return model
