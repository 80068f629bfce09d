"""Pretrained large models behind one protocol, and the prompts of the small side."""

from kcm.large.base import PROBE, AsksEach, Item, LargeAnswer, LargeModel, ReadsAhead
from kcm.large.config import ON_CPU, LargeConfig, Resources, UpstreamConfig
from kcm.large.head import HeadFit, LinearHead, fit_head
from kcm.large.prompts import NO_PROMPT, Prompt, PromptMode, Prompts, PromptsConfig, hard_candidates

__all__ = [
    "NO_PROMPT",
    "ON_CPU",
    "PROBE",
    "AsksEach",
    "HeadFit",
    "Item",
    "LargeAnswer",
    "LargeConfig",
    "LargeModel",
    "LinearHead",
    "Prompt",
    "PromptMode",
    "Prompts",
    "PromptsConfig",
    "ReadsAhead",
    "Resources",
    "UpstreamConfig",
    "fit_head",
    "hard_candidates",
]
