"""The strict base of all configuration: frozen models, and errors that name the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from kcm.errors import ConfigError


class Config(BaseModel):
    """Base of every configuration model: immutable, no unknown keys, no silent conversion of nonsense."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


ConfigT = TypeVar("ConfigT", bound=Config)


def parse_config(model: type[ConfigT], values: Mapping[str, Any], *, where: str = "") -> ConfigT:
    """Validate `values` as `model`; raise ConfigError naming each bad key, its value and what is allowed."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(model, problem) for problem in error.errors())
        raise ConfigError(f"bad configuration: {problems}", where=where) from None


def load_config(model: type[ConfigT], path: Path, overrides: Iterable[str] = ()) -> ConfigT:
    """Read a YAML file, apply `key.path=value` overrides, and validate.

    Values of overrides are YAML (`--set train.num_epochs=5`, `--set tune.gates=[confidence]`).
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise ConfigError(
            "no such configuration file", where=str(path), mend="See jobs/configs/ for examples"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not a YAML file: {' '.join(str(error).split())}", where=str(path)) from None
    if not isinstance(values, dict):
        raise ConfigError("the file must hold a mapping of keys to values", where=str(path))
    for override in overrides:
        _apply(values, override)
    return parse_config(model, values, where=str(path))


def _apply(values: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"bad override {override!r}", where="--set", mend="Write it as key.path=value")
    *parents, leaf = dotted.split(".")
    node = values
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {override!r} goes through {parent!r}, which is not a section", where="--set")
        node = child
    try:
        node[leaf] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"the value of {override!r} is not YAML", where="--set") from None


def _describe(model: type[BaseModel], problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        return f"{place} = {problem['input']!r}: {problem['msg']}" if place else str(problem["msg"])
    *parents, key = problem["loc"]
    known = _known_keys(model, parents)
    nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
    hint = f", did you mean {'.'.join([*map(str, parents), nearest[0]])!r}?" if nearest else ""
    return f"unknown key {place!r}{hint}"


def _known_keys(model: type[BaseModel], parents: Iterable[Any]) -> list[str]:
    current: list[type[BaseModel]] = [model]
    for parent in parents:
        fields = [m.model_fields[parent].annotation for m in current if parent in m.model_fields]
        found = [m for annotation in fields for m in _models(annotation)]
        # The tag of a discriminated union stands in the location too; it narrows, it does not descend.
        current = found or [m for m in current if parent in _tags(m)] or current
    return sorted({key for m in current for key in m.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in get_args(annotation) for m in _models(argument)]


def _tags(model: type[BaseModel]) -> set[Any]:
    return {field.default for field in model.model_fields.values() if isinstance(field.default, str)}
