"""Pretrained large models behind one protocol."""

from kcm.large.base import PROBE, AsksEach, Item, LargeAnswer, LargeModel, ReadsAhead
from kcm.large.config import ON_CPU, LargeConfig, Resources, UpstreamConfig
from kcm.large.head import HeadFit, LinearHead, fit_head

__all__ = [
    "ON_CPU",
    "PROBE",
    "AsksEach",
    "HeadFit",
    "Item",
    "LargeAnswer",
    "LargeConfig",
    "LargeModel",
    "LinearHead",
    "ReadsAhead",
    "Resources",
    "UpstreamConfig",
    "fit_head",
]
