"""What a large model is shown of an item, in words that a person can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kcm.large.adapters.causal_lm import CausalLmConfig
from kcm.large.adapters.openai import OpenAiConfig
from kcm.large.adapters.zero_shot import ZeroShotConfig
from kcm.large.base import Item
from kcm.large.config import AnyLargeConfig
from kcm.large.prompting.prompts import PromptMode, question


@dataclass(frozen=True)
class Message:
    """One part of what is sent: who speaks, and what is said."""

    role: str
    content: str


@dataclass(frozen=True)
class Shown:
    """How the small side modified the question (`mode`), and the question itself.

    `suggestions` are the labels that a soft prompt names, with the small model's probabilities; `candidates` the labels
    that the answer may be. `messages` are what a generative model is sent, up to the chat template and a cut at its
    longest prompt; for a dual encoder they are the label prompts that the input is compared with. A classifier has
    none: it reads the input alone.
    """

    mode: PromptMode
    suggestions: dict[str, float]
    candidates: tuple[str, ...]
    messages: tuple[Message, ...]


def shown(config: AnyLargeConfig, label_names: Sequence[str], item: Item) -> Shown:
    """What the large model of this configuration is shown of `item`."""
    prompt = item.prompt
    allowed = [label_names[label] for label in prompt.allowed(len(label_names))]
    suggestions = {label_names[label]: probability for label, probability in prompt.suggestions}
    return Shown(prompt.mode, suggestions, tuple(allowed), tuple(_messages(config, label_names, allowed, item)))


def _messages(config: AnyLargeConfig, label_names: Sequence[str], allowed: Sequence[str], item: Item) -> list[Message]:
    if isinstance(config, ZeroShotConfig):
        suggested = {label_names[label]: probability for label, probability in item.prompt.suggestions}
        return [Message("label", config.prompt_of(name, suggested.get(name))) for name in allowed]
    if not isinstance(config, OpenAiConfig | CausalLmConfig):
        return []
    asked = question(item.content.text, label_names, item.prompt, max_chars=config.max_chars)
    if isinstance(config, OpenAiConfig):
        return [Message("system", asked.instructions), Message("user", asked.data)]
    return [Message("user", str(asked))]
