"""The labels of a job: a list, or a file of names, descriptions and examples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kcm.config import parse_config
from kcm.errors import ConfigError
from kcm.large.prompts import TaskPromptConfig

_SHOWN = 5


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
        where = "labels"
        if isinstance(labels, Path) or (isinstance(labels, str) and "," not in labels):
            path = Path(labels)
            if not path.is_file():
                hint = "Give two or more names, such as a,b, or a file"
                raise ConfigError(f"neither a list nor a file: {str(labels)!r}", where=where, hint=hint)
            where, described = str(path), _read(path)
        else:
            names = labels.split(",") if isinstance(labels, str) else labels
            described = {str(name).strip(): {} for name in _unique([str(name).strip() for name in names], where)}
        if len(described) < 2:
            raise ConfigError(f"{len(described)} label", where=where, hint="Give at least two labels")
        parse_config(TaskPromptConfig, {"instructions": instructions}, where="prompt")  # no fault of the label file
        prompt = {
            "instructions": instructions,
            "descriptions": {name: entry["description"] for name, entry in described.items() if "description" in entry},
            "examples": [
                {"text": text, "label": name} for name, entry in described.items() for text in entry.get("examples", ())
            ],
        }
        return cls(tuple(described), parse_config(TaskPromptConfig, prompt, where=where))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the labels: {error}", where=str(path), hint="Save the file as UTF-8") from None
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        return {name: {} for name in _unique([line.strip() for line in text.splitlines() if line.strip()], str(path))}
    kind = "JSON" if path.suffix.lower() == ".json" else "YAML"
    try:  # BaseLoader reads every word as text; otherwise the labels `yes` and `no` would be True and False
        content = json.loads(text) if kind == "JSON" else yaml.load(text, yaml.BaseLoader)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"not {kind}: {' '.join(str(error).split())}", where=str(path)) from None
    if isinstance(content, list) and not any(isinstance(name, list | dict) for name in content):
        return {name: {} for name in _unique([str(name).strip() for name in content], str(path))}
    if not isinstance(content, Mapping):
        raise ConfigError("not a list of names or a mapping of labels", where=str(path))
    names = _unique([name.strip() for name in _keys(text, kind)], str(path))
    return {name: _described(value, name, path) for name, value in zip(names, content.values(), strict=True)}


def _keys(text: str, kind: str) -> list[str]:
    """The keys of a mapping in a file, equal ones included: a parser keeps only the last of these."""
    if kind == "JSON":
        return json.loads(text, object_pairs_hook=lambda pairs: [key for key, _ in pairs])
    return [str(key.value) for key, _ in yaml.compose(text, yaml.BaseLoader).value]


def _described(value: Any, name: str, path: Path) -> dict[str, Any]:
    match value:
        case None | "" | "~" | "null":
            return {}
        case str():
            return {"description": value}
        case dict() if value.keys() <= {"description", "examples"}:
            examples = value.get("examples", [])
            if isinstance(examples, list) and all(isinstance(example, str) for example in examples):
                return {str(key): part for key, part in value.items() if part}
    raise ConfigError(f"label {name!r} has neither a description nor `description` and `examples`", where=str(path))


def _unique(names: Sequence[str], where: str) -> Sequence[str]:
    """The names; ConfigError for empty ones, and for names that differ in case alone or not at all."""
    if "" in names:
        raise ConfigError("a label is empty", where=where)
    alike = [name for name, count in Counter(name.casefold() for name in names).items() if count > 1]
    if alike:
        shown = ", ".join(map(repr, alike[:_SHOWN]))
        raise ConfigError(f"labels occur twice: {shown}", where=where, hint="Case alone does not tell labels apart")
    return names
