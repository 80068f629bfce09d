"""Text encoders: any model that sentence-transformers reads, one unit vector per text.

The model's folder defines how token vectors become one vector (pooling, dense layers, prompts), as in
sentence-transformers. Shapes: N texts, B texts of a batch, T tokens, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from kcm.assets import folder_digest, resolve, weights_sha256
from kcm.encoders.config import Encoder
from kcm.encoders.export import NETWORK, OnnxNetwork, exported
from kcm.encoders.runtime import is_exported
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
        """Digest over all files of the model, prompt, pooling, lengths and precision; see `EncoderConfig`."""
        folder = resolve(self.model, assets_dir)
        if self.pooling == "auto":
            refuse_foreign_modules(folder)
        settings = (self.pooling, prompt_text(self, folder), self.truncate_dim, self.max_length)
        digest = folder_digest(folder, f"text {settings!r} {self.precision}\n")
        if self.fitted_head is None:
            return digest
        file = self.fitted_head / WORDS_FILE
        if not file.is_file():
            raise AssetError("no fitted words here", where=str(file))
        return hashlib.sha256(f"{weights_sha256(file)} beside {digest}".encode()).hexdigest()


class TextEncoder:
    """A frozen text encoder on one device.

    Raises AssetError if the model cannot be loaded or lacks weights, and ConfigError for a prompt that the model does
    not have, or a module outside sentence-transformers.
    """

    reads = TextEncoderConfig.reads

    def __init__(self, config: TextEncoderConfig, assets_dir: Path, device: str = "cpu") -> None:
        self.config, self.identity = config, config.identity(assets_dir)
        folder = resolve(config.model, assets_dir)
        self._embed: Any  # one of `_OnnxTexts` and `TorchTexts`
        if is_exported(config, device):
            export = exported(self.identity, config.precision, assets_dir, lambda: _exportable(config, folder))
            self._embed = _OnnxTexts(export, config, folder)
        else:
            from kcm.encoders.text_model import TorchTexts  # slow to import, and an exported network does not need it

            self._embed = TorchTexts(config, folder, device)
        # Dynamic int8 quantisation has one scale per call: with one text per call, features depend on no other text.
        self._batch_size = 1 if config.precision == "int8" else config.batch_size
        self.dim = self._embed(["a text"]).shape[1]

    def read(self, content: Content) -> Content:
        """See `Encoder`."""
        return content

    def encode(self, inputs: Sequence[Content]) -> np.ndarray:
        """Unit vectors, float32 [N, D], in the order of the inputs; batches hold texts of similar length."""
        features_ND = np.empty((len(inputs), self.dim), dtype=np.float32)
        texts = [content.text for content in inputs]
        pending = sorted(range(len(texts)), key=lambda position: len(texts[position]))
        while pending:
            size = min(self._batch_size, max(1, _CHARACTERS_AT_ONCE // max(1, len(texts[pending[-1]]))))
            index, pending = pending[-size:], pending[:-size]
            features_ND[index] = self._embed([texts[position] for position in index])
        return features_ND

    def num_cut(self, texts: Sequence[str]) -> int:
        """The number of texts with more tokens than are read."""
        return self._embed.num_cut(list(texts))


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


class _OnnxTexts:
    """Unit vectors of a batch by the exported network and its tokenizer."""

    def __init__(self, export: Path, config: TextEncoderConfig, model_path: Path) -> None:
        self._network, self._prompt = OnnxNetwork(export / NETWORK), prompt_text(config, model_path)
        self._tokenizer = Tokenizer.from_file(str(export / TOKENIZER))

    def __call__(self, texts: list[str]) -> np.ndarray:
        encodings = self._tokenizer.encode_batch_fast([self._prompt + text for text in texts])
        arrays = {
            "input_ids": np.array([row.ids for row in encodings], dtype=np.int64),
            "attention_mask": np.array([row.attention_mask for row in encodings], dtype=np.int64),
            "token_type_ids": np.array([row.type_ids for row in encodings], dtype=np.int64),
        }
        return self._network(arrays)

    def num_cut(self, texts: list[str]) -> int:
        """See `TextEncoder`."""
        encodings = self._tokenizer.encode_batch_fast([self._prompt + text for text in texts])
        return sum(bool(row.overflowing) for row in encodings)


def _exportable(config: TextEncoderConfig, folder: Path) -> Exportable:
    from kcm.encoders.text_model import exportable

    return exportable(config, folder)
