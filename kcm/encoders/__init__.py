"""Frozen backbones: one content, one float32 vector."""

from kcm.encoders.config import Encoder, EncoderConfig, encode_readable

__all__ = ["Encoder", "EncoderConfig", "encode_readable"]
