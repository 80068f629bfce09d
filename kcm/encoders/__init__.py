"""Frozen backbones: one input, one float32 vector."""

from kcm.encoders.base import Encoder, EncoderConfig
from kcm.encoders.identity import encoder_identity
from kcm.encoders.text import TextEncoder

__all__ = ["Encoder", "EncoderConfig", "TextEncoder", "encoder_identity"]
