"""From a configuration to an encoder: the one place that knows all kinds."""

from __future__ import annotations

from pathlib import Path

from kcm.assets import resolve
from kcm.encoders.base import Encoder
from kcm.encoders.config import AnyEncoderConfig
from kcm.encoders.image import ImageEncoder, ImageEncoderConfig, image_identity
from kcm.encoders.pixels import PixelsConfig, PixelsEncoder, pixels_identity
from kcm.encoders.text import TextEncoder, text_identity


def build_encoder(config: AnyEncoderConfig, assets_dir: Path, device: str = "cpu") -> Encoder:
    """The encoder that `config` describes, ready to encode.

    Raises AssetError where weights are missing or damaged, ConfigError where the configuration does not fit them.
    """
    if isinstance(config, PixelsConfig):
        return PixelsEncoder(config)
    folder = resolve(config.model, assets_dir)
    if isinstance(config, ImageEncoderConfig):
        return ImageEncoder(config, folder, device)
    return TextEncoder(config, folder, device)


def encoder_identity(config: AnyEncoderConfig, assets_dir: Path) -> str:
    """The identity of the encoder that `config` describes, without loading weights; raises what `build_encoder` raises.

    Names and batch sizes do not enter: a folder may be called anything.
    """
    if isinstance(config, PixelsConfig):
        return pixels_identity(config)
    folder = resolve(config.model, assets_dir)
    if isinstance(config, ImageEncoderConfig):
        return image_identity(config, folder)
    return text_identity(config, folder)
