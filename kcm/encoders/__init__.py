"""Frozen backbones: one content, one float32 vector."""

from kcm.encoders.base import Encoder, encode_readable
from kcm.encoders.build import build_encoder, build_reader, encoder_identity
from kcm.encoders.config import AnyEncoderConfig, EncoderConfig
from kcm.encoders.image import ImageEncoder, ImageEncoderConfig
from kcm.encoders.image_text import ImageTextConfig, ImageTextEncoder, TowersConfig
from kcm.encoders.pixels import PixelsConfig, PixelsEncoder
from kcm.encoders.text import TextEncoder, TextEncoderConfig

__all__ = [
    "AnyEncoderConfig",
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
    "build_encoder",
    "build_reader",
    "encode_readable",
    "encoder_identity",
]
