"""Pretrained large models behind one protocol, and the prompts of the small side.

Adapters are imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kcm.large.base import PROBE, AsksEach, Item, LargeAnswer, LargeModel
from kcm.large.config import ON_CPU, LargeConfig, Resources, UpstreamConfig
from kcm.large.head import HeadFit, LinearHead, fit_head
from kcm.large.prompting.prompts import NO_PROMPT, Prompt, PromptMode, Prompts, PromptsConfig, hard_candidates

_MODULES = {
    "CausalLm": "causal_lm",
    "CausalLmConfig": "causal_lm",
    "ClassifierConfig": "classifier",
    "ClassifierModel": "classifier",
    "OpenAiConfig": "openai",
    "OpenAiModel": "openai",
    "RecordedConfig": "recorded",
    "RecordedModel": "recorded",
    "ZeroShotConfig": "zero_shot",
    "ZeroShotModel": "zero_shot",
}

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
    "Resources",
    "UpstreamConfig",
    "fit_head",
    "hard_candidates",
    *_MODULES,
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"kcm.large.adapters.{_MODULES[name]}"), name)
