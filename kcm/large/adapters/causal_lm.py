"""The `causal_lm` adapter: any causal language model of transformers, which scores each label as its continuation.

The score of a label is the mean log-likelihood of its tokens after the prompt, so that long labels are not held back;
probabilities are the softmax of the scores. What the prompts of a batch share is read once and kept for the next
batch; what they do not share is read once per item, and serves every label.
Shapes: B items of a batch, C labels, T tokens of the longest prompt, V vocabulary.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from kcm.assets import folder_digest, resolve
from kcm.config import LocalPath
from kcm.encoders.torch_network import loading, pretrained
from kcm.errors import AssetError, ConfigError
from kcm.large.base import Cost, Item, LargeAnswer, LargeModel
from kcm.large.config import ON_CPU, GenerativeConfig, Resources
from kcm.large.head import LinearHead
from kcm.large.prompts import PromptMessage, Question

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
        return self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def _label(self, text: str) -> list[int]:
        if ids := self._plain(text):
            return ids
        raise ConfigError(f"the tokenizer has no tokens for the label {text!r}", where="large.model")


def load_causal_lm(model_path: Path, gguf_file: str | None, max_length: int) -> tuple[Any, Any]:
    """Tokenizer and model of a folder.

    Raises AssetError when transformers cannot load them, ConfigError when the model takes fewer tokens than
    `max_length`.
    """
    source = {"gguf_file": gguf_file} if gguf_file else {}
    with loading(model_path):
        tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True, **source)
    model = pretrained(AutoModelForCausalLM, model_path, **source)
    longest = getattr(model.config, "max_position_embeddings", None) or max_length
    if max_length > longest:
        raise ConfigError(f"max_length = {max_length}, but the model takes {longest} tokens", where="large.max_length")
    return tokenizer, model


_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class CausalLmConfig(GenerativeConfig):
    """A causal language model, by hub id or folder, that scores the labels."""

    operational: ClassVar[frozenset[str]] = frozenset(
        {"model", "gguf_file", "batch_size", "prompt"}
    )  # decide no answer, or by the identity

    model: Annotated[str, LocalPath] = Field(description="Id of the model on the hub, or a local folder.")
    gguf_file: str | None = Field(
        default=None, description="File of the folder with the weights, where they are in GGUF; null: safetensors."
    )
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Precision of the model.")
    batch_size: int = Field(default=8, ge=1, description="Items per forward pass.")
    max_length: int = Field(
        default=1024, ge=64, description="Tokens of a prompt; a text that does not fit is cut, the instructions never."
    )

    def build(self, label_names: Sequence[str], assets_dir: Path, resources: Resources = ON_CPU) -> LargeModel:
        return CausalLm(self, self._folder(assets_dir), label_names, resources.device)

    def identity(self, label_names: Sequence[str], assets_dir: Path, *, head: LinearHead | None = None) -> str:
        """Digest of the files, the dtype, the question, and how it is cut."""
        settings = "\0".join((self.task_words(label_names), str(self.max_chars), str(self.max_length), self.dtype))
        return folder_digest(self._folder(assets_dir), settings, self.gguf_file or "*.safetensors")

    @property
    def location(self) -> str:
        """The model, as it is named."""
        return self.model

    @property
    def rows_per_batch(self) -> int:
        """Enough to sort prompts by their length."""
        return 4 * self.batch_size

    def messages(self, label_names: Sequence[str], item: Item) -> list[PromptMessage]:
        """The question, in one message."""
        return [PromptMessage("user", str(self.question(label_names, item)))]

    def _folder(self, assets_dir: Path) -> Path:
        return resolve(self.model, assets_dir, weights=self.gguf_file or "*.safetensors")


class CausalLm:
    """A causal language model on one device.

    `model_path` is the folder that `kcm.assets.resolve` gives for `config.model`. Raises AssetError when transformers
    cannot load the folder, ConfigError when the model takes fewer tokens than `max_length`.
    """

    def __init__(
        self, config: CausalLmConfig, model_path: Path, label_names: Sequence[str], device: str = "cpu"
    ) -> None:
        config.prompt.check(label_names)
        self._num_labels = len(label_names)
        tokenizer, model = load_causal_lm(model_path, config.gguf_file, config.max_length)
        ask = partial(config.question, tuple(label_names))
        self._tokens = PromptTokens(tokenizer, label_names, ask, config.max_length)
        # Cast after loading: the keyword for the dtype, and its default, differ between versions of transformers.
        self._model = model.to(device=device, dtype=_DTYPES[config.dtype]).eval()
        self._device, self._batch_size = torch.device(device), config.batch_size
        self._cache_argument = _cache_argument(model, model_path)
        self._last_shared: tuple[list[int], DynamicCache] | None = None

    def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
        """One answer per item; batches hold prompts of like length, and an item costs its share of a batch's seconds.

        An item without text, or whose instructions alone are too long, is an error of its own.
        """
        answers: dict[int, LargeAnswer] = {}
        prompts: dict[int, TokenPrompt] = {}
        for number, item in enumerate(items):
            prompt = self._tokens.prompt(item)
            if isinstance(prompt, str):
                answers[number] = LargeAnswer(None, error=prompt)
            else:
                prompts[number] = prompt
        by_length = sorted(prompts, key=lambda number: -len(prompts[number].ids))
        for start in range(0, len(by_length), self._batch_size):
            batch = by_length[start : start + self._batch_size]
            found = self._answered([items[number] for number in batch], [prompts[number] for number in batch])
            answers |= dict(zip(batch, found, strict=True))
        return [answers[number] for number in range(len(items))]

    def _answered(self, items: Sequence[Item], prompts: Sequence[TokenPrompt]) -> list[LargeAnswer]:
        started = time.perf_counter()
        allowed = [item.prompt.allowed(self._num_labels) for item in items]
        scored = sorted({label for labels in allowed for label in labels})
        score_BC = np.full((len(items), self._num_labels), -np.inf)
        score_BC[:, scored] = self._scores(prompts, [self._tokens.labels[label] for label in scored])
        seconds = (time.perf_counter() - started) / len(items)
        label_tokens = sum(len(self._tokens.labels[label]) for label in scored)
        return [
            _large_answer(score_BC[row], allowed[row], Cost(seconds, len(prompts[row].ids) + label_tokens))
            for row in range(len(items))
        ]

    @torch.inference_mode()
    def _scores(self, prompts: Sequence[TokenPrompt], labels: Sequence[list[int]]) -> np.ndarray:
        """Mean log-likelihood of every label's tokens after every prompt, float64 [B, C]."""
        places = zip(*(prompt.before for prompt in prompts), strict=False)
        shared = [tokens[0] for tokens in itertools.takewhile(lambda tokens: len(set(tokens)) == 1, places)]
        batch = Tokens.left_padded([prompt.ids[len(shared) :] for prompt in prompts], len(shared), self._device)
        cache = self._shared_cache(shared)
        cache.batch_repeat_interleave(len(prompts))
        first_BV = self._read(batch, cache, logits_to_keep=1)[:, -1]
        columns = []
        for label in labels:
            score_B = first_BV[:, label[0]].clone()
            if len(label) > 1:
                score_B += self._continued(batch, label, copy.deepcopy(cache))
            columns.append(score_B / len(label))
        return torch.stack(columns, 1).cpu().numpy()

    def _shared_cache(self, shared: list[int]) -> DynamicCache:
        """Keys and values of the tokens that all prompts of a batch begin with: nearly always those of the last one."""
        if self._last_shared is None or self._last_shared[0] != shared:
            cache = DynamicCache()
            self._read(Tokens.left_padded([shared], 0, self._device), cache, logits_to_keep=1)
            self._last_shared = shared, cache
        return copy.deepcopy(self._last_shared[1])

    def _continued(self, batch: Tokens, label: list[int], cache: DynamicCache) -> Tensor:
        """Log-likelihood [B] of a label's second and later tokens, given the prompt's keys and values."""
        log_BTV = self._read(batch.followed_by(label[:-1]), cache)
        wanted_BT = torch.tensor(label[1:], device=self._device).expand(len(log_BTV), -1)
        return log_BTV.gather(-1, wanted_BT[..., None])[..., 0].sum(-1)

    def _read(self, tokens: Tokens, cache: DynamicCache, **options: Any) -> Tensor:
        """Log-probabilities of what follows each token, float64 [B, T, V]; what is read joins the cache."""
        arguments = {self._cache_argument: cache, "use_cache": True} | options
        return self._model(**tokens.inputs(), **arguments).logits.double().log_softmax(-1)


def _cache_argument(model: Any, model_path: Path) -> str:
    """How the model calls its keys and values, which depends on the version of transformers."""
    accepted = inspect.signature(model.forward).parameters
    name = next((name for name in ("cache", "past_key_values") if name in accepted), None)
    if name is None or "position_ids" not in accepted or "logits_to_keep" not in accepted:
        kind = type(model).__name__
        raise AssetError(f"{kind} has no keys and values that could be shared by labels", where=str(model_path))
    return name


def _large_answer(score_C: np.ndarray, allowed: Sequence[int], cost: Cost) -> LargeAnswer:
    """The answer to one item from the scores of its labels."""
    index = list(allowed)
    score_A = score_C[index]
    if not np.isfinite(score_A).all():
        return LargeAnswer(None, None, cost, "the model's logits are not numbers")
    weight_A = np.exp(score_A - score_A.max())
    probabilities_C = np.zeros(len(score_C), dtype=np.float32)
    probabilities_C[index] = weight_A / weight_A.sum()
    return LargeAnswer(index[int(score_A.argmax())], probabilities_C, cost)
