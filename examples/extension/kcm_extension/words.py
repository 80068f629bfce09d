"""A large model that counts words."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from kcm.inputs.content import TEXT, Part
from kcm.large import ON_CPU, Item, LargeAnswer, LargeConfig, LargeModel, LinearHead, Resources


class WordsConfig(LargeConfig):
    """Answers with the label that has most of its words in the text."""

    reads: ClassVar[frozenset[Part]] = TEXT

    words: dict[str, tuple[str, ...]] = Field(description="Label -> words that speak for it.")

    def build(self, label_names: Sequence[str], assets_dir: Path, resources: Resources = ON_CPU) -> LargeModel:
        return Words(self, label_names)

    def identity(self, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None) -> str:
        return hashlib.sha256(f"{self.words} {label_names}".encode()).hexdigest()


class Words:
    def __init__(self, config: WordsConfig, label_names: Sequence[str]) -> None:
        self._words = [config.words.get(name, ()) for name in label_names]

    def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
        return [self._answer(item.content.text.split()) for item in items]

    def _answer(self, text: list[str]) -> LargeAnswer:
        counts_C = np.array([1 + sum(text.count(word) for word in words) for words in self._words], dtype=np.float32)
        return LargeAnswer(int(counts_C.argmax()), counts_C / counts_C.sum())
