"""Pretrained large models behind one protocol, and the prompts that the small side writes for them."""

from kcm.large.base import Item, LargeAnswer, LargeModel
from kcm.large.causal_lm import CausalLm, CausalLmConfig
from kcm.large.classifier import ClassifierConfig, ClassifierModel
from kcm.large.config import LargeConfig
from kcm.large.head import HeadFit, LinearHead, fit_head
from kcm.large.openai import OpenAiConfig, OpenAiModel
from kcm.large.prompts import NO_PROMPT, Prompt, PromptMode, Prompts, PromptsConfig, hard_candidates
from kcm.large.recorded import RecordedConfig, RecordedModel
from kcm.large.zero_shot import ZeroShotConfig, ZeroShotModel

__all__ = [
    "NO_PROMPT",
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
    "ZeroShotConfig",
    "ZeroShotModel",
    "fit_head",
    "hard_candidates",
]
