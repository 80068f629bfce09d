"""From a question to the tokens of a causal language model; an item's text cannot produce special tokens.

The chat template and the instructions are tokenised normally. An item's text is tokenised separately, without special
tokens, and any added token left in it becomes a space. Shapes: B prompts, T tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from kcm.errors import AssetError, ConfigError
from kcm.large.base import Item
from kcm.large.prompting.prompts import Question

_PLACE = "KCM-QUESTION"  # stands in the chat template for what is asked


@dataclass(frozen=True)
class TokenPrompt:
    """The tokens of a question: those before the item's text, which questions share, and all of them."""

    before: list[int]
    ids: list[int]


@dataclass(frozen=True)
class Tokens:
    """What is left of a batch of prompts: the tokens to read now, padded on the left, and the mask of all so far."""

    ids_BT: Tensor
    mask_BT: Tensor
    position_BT: Tensor

    @classmethod
    def left_padded(cls, prompts: Sequence[list[int]], num_read: int, device: torch.device) -> Tokens:
        """Prompts side by side, behind `num_read` tokens of each; padding is masked, so any token will do for it."""
        longest = max(map(len, prompts))
        ids_BT = torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts], device=device)
        mask_BT = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=device)
        read_BT = mask_BT.new_ones(len(prompts), num_read)
        position_BT = (num_read + mask_BT.cumsum(1) - 1).clamp(min=0)
        return cls(ids_BT, torch.cat([read_BT, mask_BT], 1), position_BT)

    def followed_by(self, ids: Sequence[int]) -> Tokens:
        """The same tokens behind every prompt, to be read after it."""
        num_prompts, num_more = len(self.ids_BT), len(ids)
        ids_BT = self.ids_BT.new_tensor(ids).expand(num_prompts, -1)
        mask_BT = torch.cat([self.mask_BT, self.mask_BT.new_ones(num_prompts, num_more)], 1)
        step_T = torch.arange(1, num_more + 1, device=ids_BT.device)
        return Tokens(ids_BT, mask_BT, self.position_BT[:, -1:] + step_T)

    def inputs(self) -> dict[str, Tensor]:
        """As transformers calls them."""
        return {"input_ids": self.ids_BT, "attention_mask": self.mask_BT, "position_ids": self.position_BT}


class PromptTokens:
    """Builds prompts for one tokenizer: by its chat template where it has one, else as plain text."""

    def __init__(
        self, tokenizer: Any, label_names: Sequence[str], ask: Callable[[Item], Question], max_length: int
    ) -> None:
        self._tokenizer, self._ask = tokenizer, ask
        self._added = set(tokenizer.added_tokens_decoder)
        self._space = self._encoded(" ")
        self._before, self._after = self._frame()
        # Where the answer follows our own last word, its space belongs to the label.
        self.labels = [self._label(name if tokenizer.chat_template else f" {name}") for name in label_names]
        self._room = max_length - max(map(len, self.labels))

    def prompt(self, item: Item) -> TokenPrompt | str:
        """The tokens of a question, or why there can be none. The text is cut to the room that is left for it."""
        if not item.content.text.strip():
            return "the text is empty"
        asked = self._ask(item)
        before = self._before + self._plain(asked.opening)
        after = self._plain(asked.closing) + self._after
        room = self._room - len(before) - len(after)
        if room < 1:
            return f"the instructions leave no room for the text: {len(before) + len(after)} of {self._room} tokens"
        return TokenPrompt(before, before + self._plain(asked.text)[:room] + after)

    def _frame(self) -> tuple[list[int], list[int]]:
        """What the chat template puts before and after a question, special tokens included."""
        if not self._tokenizer.chat_template:
            begins = self._tokenizer("a")["input_ids"][:1]
            return (begins if begins == [self._tokenizer.bos_token_id] else []), []
        turn = [{"role": "user", "content": _PLACE}]
        whole = self._tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        before, *after = whole.split(_PLACE)
        if len(after) != 1:
            raise AssetError(f"the chat template shows a question {len(after)} times, not once")
        return tuple(self._tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, *after))

    def _plain(self, text: str) -> list[int]:
        """The tokens of a text in which nothing is special."""
        return [each for token in self._encoded(text) for each in (self._space if token in self._added else [token])]

    def _encoded(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def _label(self, text: str) -> list[int]:
        if ids := self._plain(text):
            return ids
        raise ConfigError(f"the tokenizer has no tokens for the label {text!r}", where="large.model")


def load_causal_lm(model_path: Path, gguf_file: str | None, max_length: int) -> tuple[Any, Any]:
    """Tokenizer and model of a folder.

    Raises AssetError when transformers cannot load them, ConfigError when the model takes fewer tokens than
    `max_length`.
    """
    disable_progress_bar()  # of loading weights; it would break into the bars of the stages
    source: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
    weights = source or {"use_safetensors": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True, **source)
        model, report = AutoModelForCausalLM.from_pretrained(
            model_path, local_files_only=True, output_loading_info=True, **weights
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise AssetError(
            f"cannot load the language model: {' '.join(str(error).split())}", where=str(model_path)
        ) from None
    if missing := sorted(report["missing_keys"]):  # transformers would only warn, and draw them at random
        raise AssetError(f"the language model lacks weights, such as {missing[0]!r}", where=str(model_path))
    longest = getattr(model.config, "max_position_embeddings", None) or max_length
    if max_length > longest:
        raise ConfigError(f"max_length = {max_length}, but the model takes {longest} tokens", where="large.max_length")
    return tokenizer, model
