"""What a text encoder reads, and what its model's folder defines: prompts, and the modules that pool token vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kcm.config import LocalPath
from kcm.encoders.config import EncoderConfig, read_json
from kcm.encoders.runtime import NetworkEncoderConfig
from kcm.errors import AssetError, ConfigError
from kcm.inputs.content import TEXT, Part

TOKENIZER = "tokenizer.json"  # the file in the folder of an export
WORDS_FILE = "words.safetensors"  # the file in the folder of fitted words
_MODULES, _PROMPTS = "modules.json", "config_sentence_transformers.json"


class TextSettings(NetworkEncoderConfig):
    """A frozen text model by hub id or folder, and the pooling of its token vectors."""

    reads: ClassVar[frozenset[Part]] = TEXT
    operational: ClassVar[frozenset[str]] = NetworkEncoderConfig.operational | {"words"}

    model: Annotated[str, LocalPath] = Field(description="Id of the model on the hub, or a local folder.")
    pooling: Literal["auto", "mean", "cls"] = Field(
        default="auto",
        description="auto: as the model's folder says (pooling, dense layers, prompts), read by sentence-transformers. "
        "mean, cls: the mean of the token vectors or the first of them, and nothing else.",
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
    words: Literal["auto", "none"] | Path = Field(
        default="auto",
        description="Words and pairs of words beside the embedding. auto: `kcm run` fits them to the first task if "
        "they help its left-out train rows. none: the embedding alone. Bundles name the folder of the fitted words.",
    )

    @model_validator(mode="after")
    def _prompts_need_the_models_own_pooling(self) -> Self:
        if self.prompt is not None and self.pooling != "auto":
            raise ValueError("prompt names one of the model's own, which goes with pooling: auto")
        return self

    @property
    def fitted_head(self) -> Path | None:
        """The folder of the fitted words."""
        return self.words if isinstance(self.words, Path) else None

    def aligned(self, folder: Path) -> Self:
        """This encoder with the fitted words in `folder`."""
        return self.with_settings(words=folder)


def fits_words(encoder: EncoderConfig) -> bool:
    """Whether a run fits words beside the features of an encoder, see `kcm.encoders.words`."""
    return getattr(encoder, "words", None) == "auto"


def without_words(encoder: EncoderConfig) -> EncoderConfig:
    """The encoder without words beside its vectors; unchanged if its kind never has any."""
    return encoder.with_settings(words="none") if hasattr(encoder, "words") else encoder


def prompt_text(config: TextSettings, model_path: Path) -> str:
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
