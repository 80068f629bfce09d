"""Text encoders: any model that sentence-transformers reads, one unit vector per text.

The model's folder defines how token vectors become one vector (pooling, dense layers, prompts), as in
sentence-transformers. Shapes: N texts, B texts of a batch, T tokens, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from tokenizers import Tokenizer

from kcm.assets import folder_digest, resolve
from kcm.config import LocalPath
from kcm.encoders.config import Encoder, NetworkEncoderConfig, read_json
from kcm.encoders.export import NETWORK, OnnxNetwork, exported
from kcm.errors import AssetError, ConfigError
from kcm.inputs.content import TEXT, Content, Part

TOKENIZER = "tokenizer.json"  # files in the folder of an export
_CHARACTERS_AT_ONCE = 2048  # about 512 tokens: a larger batch does not fit the caches of a core
_MODULES, _PROMPTS = "modules.json", "config_sentence_transformers.json"


class TextEncoderConfig(NetworkEncoderConfig):
    """A frozen text model by hub id or folder, and the pooling of its token vectors."""

    reads: ClassVar[frozenset[Part]] = TEXT

    model: Annotated[str, LocalPath] = Field(description="Id of the model on the hub, or a local folder.")
    pooling: Literal["auto", "mean", "cls"] = Field(
        default="auto",
        description="auto: as the model's folder says (pooling, dense layers, prompts), read by sentence-transformers. "
        "mean, first: the mean of the token vectors or the first of them, and nothing else.",
    )
    prompt: str | None = Field(
        default=None,
        description="Name of the model's prompt to put before each text; null: its default, usually none.",
    )
    truncate_dim: int | None = Field(
        default=None,
        ge=1,
        description="Number of the vector's first coordinates to keep; null: as the model says, usually all.",
    )
    max_length: int = Field(
        default=128, ge=3, description="Tokens beyond this number, or beyond the model's limit, are cut off."
    )

    @model_validator(mode="after")
    def _prompts_need_the_models_own_pooling(self) -> Self:
        if self.prompt is not None and self.pooling != "auto":
            raise ValueError("prompt names one of the model's own, which goes with pooling: auto")
        return self

    @property
    def name(self) -> str:
        return self.model

    def load(self, assets_dir: Path, device: str = "cpu") -> Encoder:
        return TextEncoder(self, assets_dir, device)

    def identity(self, assets_dir: Path) -> str:
        """Digest over all files of the model, prompt, pooling, lengths and precision; see `EncoderConfig`."""
        folder = resolve(self.model, assets_dir)
        if self.pooling == "auto":
            refuse_foreign_modules(folder)
        settings = (self.pooling, prompt_text(self, folder), self.truncate_dim, self.max_length)
        return folder_digest(folder, f"text {settings!r} {self.precision}\n")


class TextEncoder:
    """A frozen text encoder on one device.

    Raises AssetError if the model cannot be loaded or lacks weights, and ConfigError for a prompt that the model does
    not have, or a module outside sentence-transformers.
    """

    reads = TextEncoderConfig.reads

    def __init__(self, config: TextEncoderConfig, assets_dir: Path, device: str = "cpu") -> None:
        self.config, self.identity, self.read = config, config.identity(assets_dir), config.reader(assets_dir)
        folder = resolve(config.model, assets_dir)
        self._embed: Any  # one of `_OnnxTexts` and `TorchTexts`
        if config.is_exported(device):
            make = partial(_in_torch, "exportable", config, folder)
            self._embed = _OnnxTexts(exported(self.identity, config.precision, assets_dir, make), config, folder)
        else:
            self._embed = _in_torch("TorchTexts", config, folder, device)
        # Dynamic int8 quantisation has one scale per call: with one text per call, features depend on no other text.
        self._batch_size = 1 if config.precision == "int8" else config.batch_size
        self.dim = self._embed(["a text"]).shape[1]

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


def prompt_text(config: TextEncoderConfig, model_path: Path) -> str:
    """The prefix of each text: the named prompt, or else the model's default. Raises ConfigError."""
    file = model_path / _PROMPTS
    settings = read_json(file) if config.pooling == "auto" and file.is_file() else {}
    prompts = settings.get("prompts") or {}
    name = config.prompt or settings.get("default_prompt_name")
    if name is not None and name not in prompts:
        raise ConfigError(
            f"the model has no prompt {name!r}",
            where="encoder.prompt",
            hint=f"Its prompts are {', '.join(map(repr, sorted(prompts)))}" if prompts else "It has none: leave it out",
        )
    return (prompts[name] or "") if name is not None else ""


def backbone_folder(model_path: Path) -> Path:
    """The folder of the transformer among the modules of a model's folder; the folder itself if it lists none."""
    listed = _modules(model_path)
    return model_path / listed[0]["path"] if listed else model_path


def refuse_foreign_modules(model_path: Path) -> None:
    """Raise ConfigError for a module outside sentence-transformers: it would be imported and run."""
    for module in _modules(model_path):
        if not module["type"].startswith("sentence_transformers."):
            raise ConfigError(
                f"the model uses the module {module['type']}, which does not belong to sentence-transformers",
                where=str(model_path / _MODULES),
                hint="Choose another model, or set pooling: mean to use only its token vectors",
            )


def _modules(model_path: Path) -> list[dict[str, str]]:
    """The modules that a model's folder lists. Raises AssetError for a module outside the folder."""
    file = model_path / _MODULES
    listed = read_json(file) if file.is_file() else []
    try:
        parts = [Path(module["path"]) for module in listed if module["type"] + module["path"]]
    except (TypeError, KeyError):
        raise AssetError("not a list of modules with type and path", where=str(file)) from None
    if any(part.is_absolute() or ".." in part.parts for part in parts):
        raise AssetError("a module lies outside the model's folder", where=str(file), hint="Choose another model")
    return listed


def _in_torch(name: str, *arguments: Any) -> Any:
    """A call to the same model in torch, imported late: it takes seconds, and an exported network does not need it."""
    return getattr(import_module("kcm.encoders.text_model"), name)(*arguments)
