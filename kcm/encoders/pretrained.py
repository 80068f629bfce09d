"""The only module that opens the folder of a pretrained model with transformers or sentence-transformers.

No code from a folder runs: every call rejects remote code, prompts nobody, and stays offline. Weights are safetensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForTextEncoding, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from kcm.errors import AssetError

_SAFE = {"local_files_only": True, "trust_remote_code": False}
_FLOAT32 = {"dtype": "float32", "use_safetensors": True}
_PICKLE = "pytorch_model.bin"
_ADAPTER = "adapter_config.json"  # names another model, which may be anywhere

disable_progress_bar()  # a bar for loading weights would break into the bars of the stages


@contextmanager
def loading(model_path: Path) -> Iterator[None]:
    """A block that loads a model from a folder; AssetError if that fails."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
        line = " ".join(str(error).split())
        if "trust_remote_code" in line:
            raise AssetError(
                "the model brings code of its own, which is never run",
                where=str(model_path),
                hint="Choose a model of an architecture that transformers has",
            ) from None
        raise AssetError(f"cannot load the model: {line}", where=str(model_path)) from None


def load_backbone(model_path: Path) -> Any:
    """The model in a folder; for T5, its encoder. Raises the errors of `pretrained`."""
    config = _open(AutoConfig, model_path)
    kind = AutoModelForTextEncoding if getattr(config, "is_encoder_decoder", False) else AutoModel
    return pretrained(kind, model_path)


def load_whole(model_path: Path) -> Any:
    """The model in a folder with encoder and decoder. Raises the errors of `pretrained`."""
    return pretrained(AutoModel, model_path)


def load_tokenizer(model_path: Path) -> Any:
    """The tokenizer of a folder. Raises AssetError."""
    return _open(AutoTokenizer, model_path)


def load_image_processor(model_path: Path) -> Any:
    """The image processor of a folder. Raises AssetError."""
    return _open(AutoImageProcessor, model_path)


def load_sentence_model(kind: Any, model_path: Path) -> Any:
    """The model in a folder, with sentence-transformers' class `kind` for whole models. Raises AssetError."""
    options = {"model_kwargs": _FLOAT32, "device": "cpu"}
    with _checked(model_path):
        return kind(str(model_path), **options, **_SAFE)


def load_sentence_module(kind: Any, model_path: Path) -> Any:
    """The transformer in a folder, with sentence-transformers' class `kind` for modules. Raises AssetError."""
    with _checked(model_path):
        return kind(str(model_path), model_kwargs=_SAFE | _FLOAT32, processor_kwargs=_SAFE, config_kwargs=_SAFE)


def pretrained(kind: Any, model_path: Path, **files: Any) -> Any:
    """The model in a folder, by a class of transformers, with all weights except a pooler's, which is not used here.

    `files` are the files with the weights; default safetensors. Raises AssetError if transformers cannot load the
    folder or weights are missing.
    """
    files = files or {"use_safetensors": True}
    model, report = _open(kind, model_path, output_loading_info=True, **files)
    # transformers would only warn, and initialise missing weights at random.
    if absent_keys := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        raise AssetError(f"the model lacks weights, such as {absent_keys[0]!r}", where=str(model_path))
    return model


def _open(kind: Any, model_path: Path, **options: Any) -> Any:
    with _checked(model_path):
        return kind.from_pretrained(model_path, **_SAFE, **options)


@contextmanager
def _checked(model_path: Path) -> Iterator[None]:
    """`loading`, with AssetError also for parts that only have pickled weights, and for an adapter of another model."""
    for file in (*model_path.rglob(_PICKLE), *model_path.rglob(_ADAPTER)):
        if file.name == _ADAPTER or not any(file.parent.glob("*.safetensors")):
            fault = "names another model" if file.name == _ADAPTER else "is a pickle, which may hold code"
            hint = "Merge the adapter into the model" if file.name == _ADAPTER else "Save the model as safetensors"
            raise AssetError(f"{file.name} {fault}", where=str(file), hint=hint)
    with loading(model_path):
        yield
