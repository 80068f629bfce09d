"""The strict base of all configuration: frozen models, and errors that name the nearest known key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from glob import iglob
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
)

from kcm.errors import ConfigError
from kcm.redact import HIDDEN


class Config(BaseModel):
    """Base of every configuration model: immutable, no unknown keys, no lossy conversion."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    @classmethod
    def form_of(cls, value: object) -> type[Config]:
        """The model that a section is validated as: this one, unless the section names another (`kcm.components`)."""
        return cls

    @classmethod
    def forms(cls) -> list[type[Config]]:
        """The models that a section may be validated as."""
        return [cls]


ConfigT = TypeVar("ConfigT", bound=Config)


def parse_config(model: type[ConfigT], values: Mapping[str, Any], *, where: str = "") -> ConfigT:
    """Validate `values` as `model`; raise ConfigError naming each bad key, its value and what is allowed."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(model, problem, values) for problem in error.errors())
        raise ConfigError(f"bad configuration: {problems}", where=where) from None


def load_config(model: type[ConfigT], path: Path, overrides: Iterable[str] = ()) -> ConfigT:
    """Read a YAML file, apply `key.path=value` overrides, and validate; raises ConfigError.

    Values of overrides are YAML (`--set train.num_epochs=5`, `--set tune.gates=[confidence]`).
    """
    return parse_config(model, read_values(path, overrides), where=str(path))


def read_values(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """What `load_config` validates: the mapping in a YAML file, with the overrides applied. Raises ConfigError."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise ConfigError("no such configuration file", where=str(path), hint="`kcm init TABLE` writes one") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not a YAML file: {' '.join(str(error).split())}", where=str(path)) from None
    if not isinstance(values, dict):
        raise ConfigError("the file must hold a mapping of keys to values", where=str(path))
    for override in overrides:
        _apply(values, override)
    return values


def _apply(values: dict[str, Any], override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals or not dotted:
        raise ConfigError(f"bad override {override!r}", where="--set", hint="Write it as key.path=value")
    *parents, leaf = dotted.split(".")
    node = values
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {dotted!r} goes through {parent!r}, which is not a section", where="--set")
        node = child
    try:
        node[leaf] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"the value of {dotted!r} is not YAML", where="--set") from None


def _describe(model: type[BaseModel], problem: Any, values: Mapping[str, Any]) -> str:
    path, owners = _follow(model, problem["loc"], values)
    place = ".".join(path)
    if problem["type"] != "extra_forbidden":
        return f"{place}{_value_of(problem)}: {problem['msg']}" if place else str(problem["msg"])
    *parents, key = path
    nearest = difflib.get_close_matches(key, sorted({name for m in owners for name in m.model_fields}), n=1, cutoff=0.0)
    hint = f", did you mean {'.'.join([*parents, nearest[0]])!r}?" if nearest else ""
    return f"unknown key {place!r}{hint}"


def _value_of(problem: Any) -> str:
    """The refused value, for the message; empty for a whole section and for what may hold a secret."""
    value = problem["input"]
    return "" if problem["type"] == HIDDEN or isinstance(value, Mapping | BaseModel) else f" = {value!r}"


def _follow(model: type[BaseModel], location: Iterable[Any], values: Any) -> tuple[list[str], list[type[BaseModel]]]:
    """The keys that a person wrote along a location in `values`, and the models that may own the last of them.

    The tag of a discriminated union stands in the location too; it narrows the models and is no key.
    """
    path: list[str] = []
    owners, below = [model], [_form(model, values)]
    for part in location:
        if below[1:] and (tagged := [m for m in below if part in _tags(m)]):
            below = tagged
            continue
        path.append(str(part))
        owners = below
        values = values.get(part) if isinstance(values, Mapping) else None
        declared = [owner.model_fields[part].annotation for owner in owners if part in owner.model_fields]
        below = [_form(m, values) for annotation in declared for m in _models(annotation)]
    return path, owners


def _form(model: type[BaseModel], value: object) -> type[BaseModel]:
    return model.form_of(value) if issubclass(model, Config) else model


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in get_args(annotation) for m in _models(argument)]


def _tags(model: type[BaseModel]) -> set[Any]:
    return {field.default for field in model.model_fields.values() if isinstance(field.default, str)}


class LocalPath:
    """Marks a field of texts that may be paths on this machine: `Annotated[str, LocalPath]`.

    Such a field may as well hold a URI, a pattern, or the id of a model on the hub. A field of `Path` needs no mark.
    """


def with_absolute_paths(config: ConfigT) -> ConfigT:
    """A copy in which every path that leads to something on this machine is absolute.

    Other texts stay as they are: ids and URIs, and paths that only another machine knows.
    """
    changed = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if (absolute := _absolute(value, LocalPath in field.metadata)) != value:
            changed[name] = absolute
    return config.model_copy(update=changed)


def _absolute(value: Any, is_path: bool) -> Any:
    if isinstance(value, Config):
        return with_absolute_paths(value)
    if isinstance(value, dict):
        return {key: _absolute(each, is_path) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(_absolute(each, is_path) for each in value)
    if isinstance(value, Path):
        return Path(_located(str(value)))
    return _located(value) if is_path and isinstance(value, str) else value


def _located(text: str) -> str:
    path = os.path.expanduser(text)
    leads_somewhere = os.path.exists(path) or any(iglob(path, recursive=True))
    return os.path.abspath(path) if leads_somewhere else text
