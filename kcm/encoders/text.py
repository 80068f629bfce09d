"""Text encoders: any model that sentence-transformers reads, one unit vector per text.

The model's folder defines how token vectors become one vector (pooling, dense layers, prompts), as in
sentence-transformers. Shapes: N texts, B texts of a batch, T tokens, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Encoding, Tokenizer

from kcm.assets.manifest import folder_digest, weights_sha256
from kcm.assets.resolve import resolve
from kcm.encoders.config import Arrays, Encoder
from kcm.encoders.network_encoder import NetworkEncoder
from kcm.encoders.text_settings import TOKENIZER, WORDS_FILE, TextSettings, prompt_text, refuse_foreign_modules
from kcm.errors import AssetError
from kcm.inputs.content import Content

if TYPE_CHECKING:
    from kcm.encoders.torch_network import Exportable

_CHARACTERS_AT_ONCE = 2048  # about 512 tokens: a larger batch does not fit the caches of a core


class TextEncoderConfig(TextSettings):
    """A frozen text model by hub id or folder, and the pooling of its token vectors."""

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        if self.fitted_head is None:
            return TextEncoder(self, assets_dir, device)
        return TextsWithWords(self, self.fitted_head, assets_dir, device)

    def identity(self, assets_dir: Path) -> str:
        """Digest over all files of the model, prompt, pooling and lengths; see `EncoderConfig`."""
        folder = resolve(self.model, assets_dir)
        if self.pooling == "auto":
            refuse_foreign_modules(folder)
        settings = (self.pooling, prompt_text(self, folder), self.truncate_dim, self.max_length)
        digest = folder_digest(folder, f"text {settings!r}\n")
        if self.fitted_head is None:
            return digest
        file = self.fitted_head / WORDS_FILE
        if not file.is_file():
            raise AssetError("no fitted words here", where=str(file))
        return hashlib.sha256(f"{weights_sha256(file)} beside {digest}".encode()).hexdigest()


class TextEncoder(NetworkEncoder):
    """A frozen text encoder on one device.

    Raises AssetError if the model cannot be loaded or lacks weights, and ConfigError for a prompt that the model does
    not have, or a module outside sentence-transformers.
    """

    config: TextEncoderConfig

    def __init__(self, config: TextEncoderConfig, assets_dir: Path, device: str = "cpu") -> None:
        self._folder = resolve(config.model, assets_dir)
        self._prompt = prompt_text(config, self._folder)
        super().__init__(config, assets_dir, device)

    def exportable(self) -> Exportable:
        from kcm.encoders.text_model import exportable  # slow to import, and an exported network does not need it

        return exportable(self.config, self._folder)

    def arrays(self, inputs: Sequence[Content]) -> Arrays:
        encodings = self._tokenized([content.text for content in inputs])
        return {
            "input_ids": np.array([row.ids for row in encodings], dtype=np.int64),
            "attention_mask": np.array([row.attention_mask for row in encodings], dtype=np.int64),
            "token_type_ids": np.array([row.type_ids for row in encodings], dtype=np.int64),
        }

    def batches(self, inputs: Sequence[Content]) -> list[list[int]]:
        """Batches of texts of similar length, the longest first."""
        pending = sorted(range(len(inputs)), key=lambda position: len(inputs[position].text))
        batches = []
        while pending:
            longest = max(1, len(inputs[pending[-1]].text))
            size = min(self.batch_size, max(1, _CHARACTERS_AT_ONCE // longest))
            batches.append(pending[-size:])
            del pending[-size:]
        return batches

    def num_cut(self, texts: Sequence[str]) -> int:
        """The number of texts with more tokens than are read."""
        return sum(bool(row.overflowing) for row in self._tokenized(texts))

    def _tokenized(self, texts: Sequence[str]) -> list[Encoding]:
        return self._tokenizer.encode_batch_fast([self._prompt + text for text in texts])

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_str(self.file(TOKENIZER))


class TextsWithWords:
    """A text encoder whose unit vectors are followed by the topics of the fitted words in a folder."""

    reads = TextEncoderConfig.reads

    def __init__(self, config: TextEncoderConfig, folder: Path, assets_dir: Path, device: str) -> None:
        from kcm.encoders.words import Words  # imports scikit-learn, which is slow

        self.identity, self._words = config.identity(assets_dir), Words.load(folder)
        # With the default of `words` a large model with the same encoder shares the network.
        texts = config.with_settings(words="auto").build(assets_dir, device)
        assert isinstance(texts, TextEncoder)
        self._texts, self.num_cut = texts, texts.num_cut
        self.read, self.dim = texts.read, texts.dim + self._words.num_topics

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Unit vectors and topics, float32 [N, D], in the order of the inputs."""
        topics_NK = self._words.encode([content.text for content in inputs])
        return np.concatenate([self._texts.encode(inputs), topics_NK], axis=1)
