"""The prompt of a large model for an item, in a form for people."""

from __future__ import annotations

from dataclasses import dataclass

from kcm.large.prompting.prompts import PromptMode


@dataclass(frozen=True)
class Message:
    """One message of a chat: role and text."""

    role: str
    content: str


@dataclass(frozen=True)
class Shown:
    """The prompt mode of a question (`mode`), and the question itself.

    `suggestions` are the labels of a soft prompt, with the small model's probabilities; `candidates` the labels of a
    hard one. `messages` are those of a generative model, before the chat template and truncation; for a dual encoder
    they are the label prompts. A classifier has none: it reads the input alone.
    """

    mode: PromptMode
    suggestions: dict[str, float]
    candidates: tuple[str, ...]
    messages: tuple[Message, ...]
