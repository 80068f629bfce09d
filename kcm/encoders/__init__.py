"""Frozen backbones: one content, one float32 vector. Encoders are imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kcm.encoders.config import Encoder, EncoderConfig, TowersConfig, encode_readable

_MODULES = {
    "AutoEncoderConfig": "auto",
    "ImageEncoder": "image",
    "ImageEncoderConfig": "image",
    "ImageTextConfig": "dual.image_text",
    "PixelsConfig": "pixels",
    "PixelsEncoder": "pixels",
    "PrecomputedConfig": "precomputed",
    "PrecomputedEncoder": "precomputed",
    "TextEncoder": "text",
    "TextEncoderConfig": "text",
}

__all__ = ["Encoder", "EncoderConfig", "TowersConfig", "encode_readable", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"kcm.encoders.{_MODULES[name]}"), name)
