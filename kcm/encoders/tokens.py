"""Texts as token ids, by the tokenizer of a model, without transformers' bookkeeping around each call.

Shapes: N texts, B texts of a batch, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
from tokenizers import Tokenizer as Fast

_TOKENS_PER_RUN = 512  # more of them leave the caches of a core

Tokens = tuple[np.ndarray, np.ndarray]  # ids and type ids of a text, int64 [T]


class Tokenizer(Protocol):
    """Texts to tokens, at most so many of a text, and tokens to batches."""

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text."""

    def batch(self, tokens: Sequence[Tokens]) -> dict[str, np.ndarray]:
        """Arrays [B, T] by name, padded to the longest."""


class _Padded:
    """How a model wants its batches."""

    def __init__(self, pad_id: int, pad_left: bool, has_types: bool) -> None:
        self._pad_id, self._pad_left, self._has_types = pad_id, pad_left, has_types

    def batch(self, tokens: Sequence[Tokens]) -> dict[str, np.ndarray]:
        """See `Tokenizer`."""
        shape = len(tokens), max(len(ids) for ids, _ in tokens)
        ids_BT = np.full(shape, self._pad_id, dtype=np.int64)
        mask_BT, types_BT = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, (ids, types) in enumerate(tokens):
            place = slice(shape[1] - len(ids), None) if self._pad_left else slice(len(ids))
            ids_BT[row, place], mask_BT[row, place], types_BT[row, place] = ids, 1, types
        arrays = {"input_ids": ids_BT, "attention_mask": mask_BT}
        return arrays | {"token_type_ids": types_BT} if self._has_types else arrays


class FastTokens(_Padded):
    """A tokenizer of the package `tokenizers`, which works outside Python's lock."""

    def __init__(self, tokenizer: Fast, max_length: int, **padding: Any) -> None:
        super().__init__(**padding)
        self._tokenizer, self._padding = tokenizer, padding
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """See `Tokenizer`."""
        return [
            (np.array(found.ids, dtype=np.int64), np.array(found.type_ids, dtype=np.int64))
            for found in self._tokenizer.encode_batch_fast(list(texts))
        ]

    @property
    def text(self) -> str:
        """All of it, for a file."""
        return json.dumps({"tokenizer": self._tokenizer.to_str(), "padding": self._padding})

    @classmethod
    def read(cls, text: str, max_length: int) -> Self:
        """What `text` gave."""
        written = json.loads(text)
        return cls(Fast.from_str(written["tokenizer"]), max_length, **written["padding"])


class PythonTokens(_Padded):
    """A tokenizer of transformers that Python runs."""

    def __init__(self, tokenizer: Any, max_length: int, **padding: Any) -> None:
        super().__init__(**padding)
        self._tokenizer, self._max_length = tokenizer, max_length

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """See `Tokenizer`."""
        found = self._tokenizer(
            list(texts), truncation=True, max_length=self._max_length, return_token_type_ids=self._has_types
        )
        ids = [np.array(each, dtype=np.int64) for each in found["input_ids"]]
        types = found["token_type_ids"] if self._has_types else [np.zeros(len(each)) for each in ids]
        return [(each, np.array(type_ids, dtype=np.int64)) for each, type_ids in zip(ids, types, strict=True)]


def tokens_of(tokenizer: Any, max_length: int) -> Tokenizer:
    """A tokenizer of transformers, which must not be used any more itself, cutting texts at `max_length` tokens."""
    padding = {
        "pad_id": tokenizer.pad_token_id or 0,
        "pad_left": tokenizer.padding_side == "left",
        "has_types": "token_type_ids" in tokenizer.model_input_names,
    }
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if isinstance(fast, Fast):
        return FastTokens(fast, max_length, **padding)
    return PythonTokens(tokenizer, max_length, **padding)


def runs(lengths_N: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Positions [B] of the texts of each forward pass, the longest first, at most `batch_size` of like length.

    A pass holds `_TOKENS_PER_RUN` tokens with its padding, or one text.
    """
    order = np.argsort(-lengths_N, kind="stable")
    found, start = [], 0
    while start < len(order):
        size = min(batch_size, max(1, _TOKENS_PER_RUN // max(1, int(lengths_N[order[start]]))))
        found.append(order[start : start + size])
        start += size
    return found
