"""Pretrained large models behind one protocol, and the prompts that the small side writes for them."""

from kcm.large.adapters.causal_lm import CausalLm, CausalLmConfig
from kcm.large.adapters.classifier import ClassifierConfig, ClassifierModel
from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel, UpstreamConfig
from kcm.large.adapters.recorded import RecordedConfig, RecordedModel
from kcm.large.adapters.zero_shot import ZeroShotConfig, ZeroShotModel
from kcm.large.base import AsksEach, Item, LargeAnswer, LargeModel
from kcm.large.config import LargeConfig
from kcm.large.head import HeadFit, LinearHead, fit_head
from kcm.large.prompting.prompts import NO_PROMPT, Prompt, PromptMode, Prompts, PromptsConfig, hard_candidates

__all__ = [
    "NO_PROMPT",
    "AsksEach",
    "CausalLm",
    "CausalLmConfig",
    "ClassifierConfig",
    "ClassifierModel",
    "HeadFit",
    "Item",
    "LargeAnswer",
    "LargeConfig",
    "LargeModel",
    "LinearHead",
    "OpenAiConfig",
    "OpenAiModel",
    "Prompt",
    "PromptMode",
    "Prompts",
    "PromptsConfig",
    "RecordedConfig",
    "RecordedModel",
    "UpstreamConfig",
    "ZeroShotConfig",
    "ZeroShotModel",
    "fit_head",
    "hard_candidates",
]
