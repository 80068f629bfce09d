"""How a model of sentence-transformers makes one vector of its token vectors, as its own folder says.

    modules.json                          the modules in their order: Transformer, Pooling, Dense, LayerNorm, Normalize
    1_Pooling/config.json                 which token vectors are joined
    2_Dense/{config.json,model.safetensors}
    config_sentence_transformers.json     prompts
    sentence_bert_config.json             do_lower_case

A folder without modules.json is a plain model: the mean of its token vectors. Torch is not imported.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kcm.errors import AssetError, ConfigError

MODULES = "modules.json"
_PROMPTS = "config_sentence_transformers.json"
_TRANSFORMER = "sentence_bert_config.json"
_EARLIER_KEYS = {  # in the order in which what they name is joined
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Step:
    """A module behind the pooling: its kind, its folder below the model's, and its settings."""

    kind: str
    folder: str = ""
    config: tuple[tuple[str, Any], ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name."""
        return dict(self.config)


@dataclass(frozen=True)
class Conventions:
    """What lies around a backbone.

    `backbone` is its folder below the model's. `poolings` are joined in their order. `skip_prompt`: the tokens of the
    prompt take no part in the pooling. `prompts` are texts put before an input, by name. Of the vector the first
    `truncate_dim` coordinates are kept, None for all.
    """

    backbone: str = ""
    poolings: tuple[str, ...] = ("mean",)
    skip_prompt: bool = False
    steps: tuple[Step, ...] = ()
    prompts: tuple[tuple[str, str], ...] = ()
    default_prompt: str | None = None
    lower_case: bool = False
    truncate_dim: int | None = None

    def prompt(self, name: str | None) -> str:
        """The prompt of this name, the model's own default for None. Raises ConfigError for an unknown name."""
        if (name := name or self.default_prompt) is None:
            return ""
        known = dict(self.prompts)
        if name not in known:
            raise ConfigError(
                f"the model has no prompt {name!r}",
                where="encoder.prompt",
                hint=f"Its prompts are {', '.join(map(repr, known))}" if known else "It has none: leave it out",
            )
        return known[name]

    @property
    def files(self) -> tuple[str, ...]:
        """The weights that steps bring, below the model's folder."""
        return tuple(f"{step.folder}/model.safetensors" for step in self.steps if step.kind in ("Dense", "LayerNorm"))


def read_conventions(folder: Path) -> Conventions:
    """The conventions of the model in a folder.

    Raises AssetError for a damaged file, ConfigError for a module that is not known here.
    """
    if not (folder / MODULES).is_file():
        return Conventions()
    listed = _json(folder / MODULES)
    kinds = [(str(each["type"]).rpartition(".")[2], str(each["path"])) for each in listed]
    (first, backbone), *others = kinds or [("nothing", "")]
    if first != "Transformer":
        raise _unknown(first, folder)
    poolings: tuple[str, ...] = ("mean",)
    skip, steps = False, list[Step]()
    for kind, path in others:
        settings = _json(folder / path / "config.json") if (folder / path / "config.json").is_file() else {}
        match kind:
            case "Pooling" if not steps:
                poolings, skip = _poolings(settings, folder), not settings.get("include_prompt", True)
            case "Dense" | "LayerNorm" | "Normalize":
                steps.append(Step(kind, path, tuple(sorted(settings.items()))))
            case "Dropout":
                pass
            case _:
                raise _unknown(kind, folder)
    prompts = _json(folder / _PROMPTS) if (folder / _PROMPTS).is_file() else {}
    texts = _json(folder / backbone / _TRANSFORMER) if (folder / backbone / _TRANSFORMER).is_file() else {}
    return Conventions(
        backbone,
        poolings,
        skip,
        tuple(steps),
        tuple(sorted((name, text) for name, text in (prompts.get("prompts") or {}).items() if text is not None)),
        prompts.get("default_prompt_name"),
        bool(texts.get("do_lower_case", False)),
        prompts.get("truncate_dim"),
    )


def backbone_folder(folder: Path) -> str:
    """Where the backbone lies below a model's folder, whatever modules follow it; "" where it is the folder itself."""
    listed = _json(folder / MODULES) if (folder / MODULES).is_file() else []
    return str(listed[0]["path"]) if listed else ""


def _poolings(settings: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """The poolings that a module's settings name, in the keys of today or in the earlier ones."""
    named = settings.get("pooling_mode")
    if named is None:
        named = [name for key, name in _EARLIER_KEYS.items() if settings.get(key)] or ["mean"]
    found = (named,) if isinstance(named, str) else tuple(named)
    if unknown := [name for name in found if name not in _EARLIER_KEYS.values()]:
        raise _unknown(f"Pooling ({unknown[0]})", folder)
    return found


def _unknown(kind: str, folder: Path) -> ConfigError:
    return ConfigError(
        f"the model makes its vectors by the module {kind}, which is not known here",
        where=str(folder / MODULES),
        hint="Choose another model, or set pooling: mean to take its token vectors alone",
    )


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AssetError(f"cannot be read: {error}", where=str(file)) from None
