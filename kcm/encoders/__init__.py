"""Frozen backbones: one content, one float32 vector."""

from kcm.encoders.base import Encoder, encode_readable
from kcm.encoders.config import EncoderConfig, TowersConfig
from kcm.encoders.image import ImageEncoder, ImageEncoderConfig
from kcm.encoders.image_text import ImageTextConfig, ImageTextEncoder
from kcm.encoders.pixels import PixelsConfig, PixelsEncoder
from kcm.encoders.text import TextEncoder, TextEncoderConfig

__all__ = [
    "Encoder",
    "EncoderConfig",
    "ImageEncoder",
    "ImageEncoderConfig",
    "ImageTextConfig",
    "ImageTextEncoder",
    "PixelsConfig",
    "PixelsEncoder",
    "TextEncoder",
    "TextEncoderConfig",
    "TowersConfig",
    "encode_readable",
]
