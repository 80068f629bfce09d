"""The labels of a job: a list, or a file of names, descriptions and examples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kcm.config import Config, parse_config
from kcm.errors import ConfigError
from kcm.inputs.visible import shown
from kcm.large.prompts import TaskPromptConfig

_NOTHING = (None, "", "~", "null")  # a label without a description


class _Meaning(Config):
    """What a label means, for the large model."""

    description: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelList:
    """Names of labels, in order, and their descriptions for the large model."""

    names: tuple[str, ...]
    prompt: TaskPromptConfig

    @classmethod
    def of(cls, labels: Sequence[str] | str | Path, instructions: str | None = None) -> LabelList:
        """From a list, from names joined by commas, or from a file.

        A .txt file has a label per line. A .yaml or .json file has a list of names, or maps each name to its
        description, or to `description` and `examples`. `instructions` are a prompt with {labels} in it. Raises
        ConfigError for fewer than two labels, duplicates, and files that are none of these.
        """
        if isinstance(labels, str):
            labels = labels.split(",") if "," in labels else Path(labels)
        where, content = (str(labels), _read(labels)) if isinstance(labels, Path) else ("labels", labels)
        names = [str(name).strip() for name in content]
        _check(names, where)
        values = content.values() if isinstance(content, Mapping) else [None] * len(names)
        meanings = {
            name: _meaning(value, f"{where}, label {name!r}") for name, value in zip(names, values, strict=True)
        }
        parse_config(TaskPromptConfig, {"instructions": instructions}, where="prompt")  # no fault of the label file
        prompt = {
            "instructions": instructions,
            "descriptions": {name: own.description for name, own in meanings.items() if own.description},
            "examples": [{"text": text, "label": name} for name, own in meanings.items() for text in own.examples],
        }
        return cls(tuple(names), parse_config(TaskPromptConfig, prompt, where=where))


def _read(path: Path) -> Sequence[Any] | Mapping[Any, Any]:
    """Names, or what each name means."""
    if not path.is_file():
        hint = "Give two or more names, such as a,b, or a file"
        raise ConfigError(f"neither a list nor a file: {str(path)!r}", where="labels", hint=hint)
    kind = path.suffix.lower()
    try:
        text = path.read_text(encoding="utf-8-sig")
        if kind not in (".yaml", ".yml", ".json"):
            return [line for line in text.splitlines() if line.strip()]
        # BaseLoader reads every word as text; otherwise the labels `yes` and `no` would be True and False
        content = json.loads(text) if kind == ".json" else yaml.load(text, yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the labels: {' '.join(str(error).split())}", where=str(path)) from None
    if not isinstance(content, Mapping | list) or any(isinstance(name, list | dict) for name in content):
        raise ConfigError("not a list of names or a mapping of labels", where=str(path))
    if isinstance(content, Mapping):
        _check([key.strip() for key in _keys(text, kind)], str(path))
    return content


def _keys(text: str, kind: str) -> list[str]:
    """The keys of a mapping in a file, equal ones included: a parser keeps only the last of these."""
    if kind == ".json":
        return json.loads(text, object_pairs_hook=lambda pairs: [key for key, _ in pairs])
    mapping = yaml.compose(text, yaml.BaseLoader)
    assert mapping is not None  # it has been parsed
    return [str(key.value) for key, _ in mapping.value]


def _meaning(value: Any, where: str) -> _Meaning:
    if value in _NOTHING:
        return _Meaning()
    return parse_config(_Meaning, {"description": value} if isinstance(value, str) else value, where=where)


def _check(names: Sequence[str], where: str) -> None:
    """Raise ConfigError for fewer than two names, empty ones, and names that differ in case alone or not at all."""
    if "" in names:
        raise ConfigError("a label is empty", where=where)
    if odd := [name for name in names if shown(name) != name]:
        raise ConfigError(f"a label is no visible line: {odd[0]!r}", where=where)
    alike = [name for name, count in Counter(name.casefold() for name in names).items() if count > 1]
    if alike:
        twice = ", ".join(map(repr, alike[:5]))
        raise ConfigError(f"labels occur twice: {twice}", where=where, hint="Case alone does not tell labels apart")
    if len(names) < 2:
        raise ConfigError(f"{len(names)} label", where=where, hint="Give at least two labels")
