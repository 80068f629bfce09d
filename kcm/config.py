"""The strict base of all configuration: frozen models, and errors that name the nearest known key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from glob import iglob
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from kcm.errors import ConfigError
from kcm.local_files import require_regular
from kcm.redact import HIDDEN

_IS_TABLE = "If it is a table, run `kcm init` on it first"
_UNKNOWN_KEY, _MUST_BE = "unknown_key", "Input should be "
_PLAIN_WORDS = {  # for pydantic's words
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
    "a valid tuple": "a list",
    "a valid ": "a ",
    "a integer": "an integer",
}


class Config(BaseModel):
    """Base of every configuration model: immutable, no unknown keys, no lossy conversion."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        """Raise for unknown keys, each with the nearest known keys."""
        unknown_keys = [key for key in values if key not in cls.model_fields] if isinstance(values, dict) else []
        if unknown_keys:
            raise ValidationError.from_exception_data(cls.__name__, [cls._unknown_key(key) for key in unknown_keys])
        return values

    @classmethod
    def _unknown_key(cls, key: object) -> InitErrorDetails:
        nearest = difflib.get_close_matches(str(key), sorted(cls.model_fields), n=1)
        reason = PydanticCustomError(_UNKNOWN_KEY, "unknown key", {"nearest": nearest})
        return InitErrorDetails(type=reason, loc=(str(key),), input=None)

    @classmethod
    def forms(cls) -> list[type[Config]]:
        """The models that a section may be validated as."""
        return [cls]


ConfigT = TypeVar("ConfigT", bound=Config)


def parse_config(
    model: type[ConfigT], values: Mapping[str, Any], *, where: str = "", name: str = "configuration"
) -> ConfigT:
    """Validate `values` as `model`; raises ConfigError naming each bad key, its value and the allowed values.

    `name` says what the values are, for the message.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(map(_described, error.errors()))
        raise ConfigError(f"bad {name}: {problems}", where=where) from None


def load_config(model: type[ConfigT], path: Path, overrides: Iterable[str] = ()) -> ConfigT:
    """Read a YAML file, apply `key.path=value` overrides, and validate; raises ConfigError.

    Values of overrides are YAML (`--set train.num_epochs=5`, `--set tune.gates=[confidence]`).
    """
    return parse_config(model, read_values(path, overrides), where=str(path))


def read_values(path: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The values that `load_config` validates: a YAML file's mapping with the overrides. Raises ConfigError."""
    require_regular(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise ConfigError("no such configuration file", where=str(path), hint="`kcm init TABLE` writes one") from None
    except IsADirectoryError:
        raise ConfigError("a folder, not a configuration file", where=str(path)) from None
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not a YAML file: {' '.join(str(error).split())}", where=str(path)) from None
    if not isinstance(values, dict):
        raise ConfigError("no configuration: it has no keys with values", where=str(path), hint=_IS_TABLE)
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


def _described(problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    place = ".".join(path)
    if problem["type"] == _UNKNOWN_KEY:
        hint = "".join(f", did you mean {'.'.join([*path[:-1], name])!r}?" for name in problem["ctx"]["nearest"])
        return f"unknown key {place!r}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:
        return str(message)
    value = problem["input"]
    is_shown = problem["type"] != HIDDEN and not isinstance(value, Mapping | BaseModel)  # no section, no secret
    if message.startswith(_MUST_BE):
        rule = message.removeprefix(_MUST_BE).partition(", unable")[0]
        for words, plain in _PLAIN_WORDS.items():
            rule = rule.replace(words, plain)
        return f"{place} must be {rule}{f', not {value!r}' if is_shown else ''}"
    return f"{place}{f' = {value!r}' if is_shown else ''}: {message}"


class LocalPath:
    """Marks a field of texts that may be paths on this machine: `Annotated[str, LocalPath]`.

    Such a field may also hold a URI, a pattern, or the id of a model on the hub. A field of `Path` needs no mark.
    """


def with_absolute_paths(config: ConfigT) -> ConfigT:
    """A copy in which every path to something on this machine is absolute.

    Other texts stay as they are: ids, URIs, and paths that exist only on another machine.
    """
    return with_paths(config, _absolute)


def with_paths(config: ConfigT, change: Callable[[str], str]) -> ConfigT:
    """A copy with every path changed, and every text marked as a `LocalPath`."""
    updates = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if (new_value := _with_paths(value, LocalPath in field.metadata, change)) is not value:
            updates[name] = new_value
    return config.model_copy(update=updates)


def _with_paths(value: Any, is_path: bool, change: Callable[[str], str]) -> Any:
    if isinstance(value, Config):
        return with_paths(value, change)
    if isinstance(value, dict):
        return {key: _with_paths(item, is_path, change) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_with_paths(item, is_path, change) for item in value)
    if isinstance(value, Path):
        return Path(change(str(value)))
    return change(value) if is_path and isinstance(value, str) else value


def _absolute(text: str) -> str:
    path = os.path.expanduser(text)
    leads_somewhere = os.path.exists(path) or any(iglob(path, recursive=True))
    return os.path.abspath(path) if leads_somewhere else text
