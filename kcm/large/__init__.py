"""Pretrained large models behind one protocol, and the prompts that the small side writes for them."""

from kcm.large.base import Item, LargeAnswer, LargeModel
from kcm.large.classifier import ClassifierConfig, ClassifierModel
from kcm.large.config import LargeConfig
from kcm.large.head import HeadFit, LinearHead, fit_head
from kcm.large.prompts import NO_PROMPT, Prompt, PromptMode, hard_candidates
from kcm.large.recorded import RecordedConfig, RecordedModel

__all__ = [
    "NO_PROMPT",
    "ClassifierConfig",
    "ClassifierModel",
    "HeadFit",
    "Item",
    "LargeAnswer",
    "LargeConfig",
    "LargeModel",
    "LinearHead",
    "Prompt",
    "PromptMode",
    "RecordedConfig",
    "RecordedModel",
    "fit_head",
    "hard_candidates",
]
