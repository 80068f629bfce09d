"""What a large model is shown of an item, in words that a person can read."""

from __future__ import annotations

from dataclasses import dataclass

from kcm.large.prompting.prompts import PromptMode


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
