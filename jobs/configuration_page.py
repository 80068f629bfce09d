"""The configuration reference: one Markdown table per model, generated from the models themselves."""

from __future__ import annotations

import types
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Len, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kcm.components import Component
from kcm.config import Config

HEAD = """# Configuration

One YAML file describes a run; any key can be overridden on the command line by `--set key.path=value`.
An unknown key is an error that names the nearest known one. This page is printed by `kcm config`.
"""
_BOUNDS = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}


def configuration_reference(model: type[BaseModel]) -> str:
    """Markdown for `model` and every model below it, in the order of their fields; a union gives a section each."""
    return "\n".join([HEAD, *_section(model, path="")])


def _section(model: type[BaseModel], path: str, above: frozenset[str] = frozenset()) -> Iterator[str]:
    yield f"## {f'`{path}`' if path else 'The run'}{_variant(model)}\n"
    yield f"{_prose(model)}\n"
    yield from table_of_keys(model)
    yield ""
    for name, field in model.model_fields.items():
        for part in _models(field.annotation):
            family = part.family.name if issubclass(part, Component) else ""
            if family not in above:  # the forms of a component within one of its family are those above
                yield from _section(part, f"{path}.{name}" if path else name, above | {family} - {""})


def table_of_keys(model: type[BaseModel]) -> Iterator[str]:
    """A row for each field of a model."""
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for name, field in model.model_fields.items():
        tag = _tag(model, name, field)
        kind, default = (f"`{tag}`", f"`{tag}`") if tag else (_type(field), _default(field))
        cells = (f"`{name}`", kind, default, "Chooses this form of the section." if tag else _meaning(field))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _variant(model: type[BaseModel]) -> str:
    """` with KEY: VALUE` for a section that has several forms."""
    tags = [f"`{name}: {tag}`" for name, field in model.model_fields.items() if (tag := _tag(model, name, field))]
    return f" with {tags[0]}" if tags else ""


def _tag(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    """The only value of a field that chooses the form of a section; empty for any other field."""
    if issubclass(model, Component) and name == model.family.tag:
        path = f"{model.__module__}:{model.__qualname__}"
        return next((known.tag for known in model.family.known() if known.path == path), path)
    values = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return values[0] if len(values) == 1 else ""


def _meaning(field: FieldInfo) -> str:
    if field.description:
        return field.description
    models = _models(field.annotation)
    return "One of the forms below." if models[1:] else _prose(models[0]) if models else ""


def _prose(model: type[BaseModel]) -> str:
    """The first paragraph of a model's docstring."""
    return " ".join((model.__doc__ or "").partition("\n\n")[0].split())


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return list(annotation.forms()) if issubclass(annotation, Config) else [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _type(field: FieldInfo) -> str:
    name, null = _named(field.annotation), " or null"
    bounded = " ".join([name.removesuffix(null), *filter(None, map(_bound, field.metadata))])
    return bounded + null if name.endswith(null) else bounded


def _named(annotation: Any) -> str:
    """A type as a person writes it: `integer`, `list of text`, `one of a, b`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [bound for item in arguments[1:] if (bound := _bound(item))]
        return " ".join([_named(arguments[0]), *bounds])
    if origin is Literal:
        return (
            "one of " + ", ".join(f"`{_scalar(value)}`" for value in arguments)
            if arguments[1:]
            else f"`{arguments[0]}`"
        )
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_named(argument) for argument in arguments))
    if origin in (list, tuple, set, frozenset):
        return f"list of {_named(arguments[0])}"
    if origin is dict:
        return f"map from {_named(arguments[0])} to {_named(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section below"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(f"`{member.value}`" for member in annotation)
    plain = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null"}
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _bound(item: Any) -> str:
    for kind, (sign, attribute) in _BOUNDS.items():
        if isinstance(item, kind):
            return f"{sign} {getattr(item, attribute):g}"
    if isinstance(item, (MinLen, Len)) and item.min_length:
        return f"(at least {item.min_length})"
    if isinstance(item, MaxLen):
        return f"(at most {item.max_length})"
    return ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        values = value.model_dump(mode="json", exclude_unset=True)
        if len(_models(field.annotation)) > 1:
            tags = {name: _tag(type(value), name, part) for name, part in type(value).model_fields.items()}
            values = {name: tag for name, tag in tags.items() if tag} | values
        return f"`{_scalar(values)}`" if values else "see below"
    return f"`{_scalar(value)}`"


def _scalar(value: Any) -> str:
    """A value as YAML on one line."""
    plain = (
        value.value if isinstance(value, Enum) else list(value) if isinstance(value, (tuple, set, frozenset)) else value
    )
    if not isinstance(plain, (list, dict, str, int, float, bool, type(None))):
        plain = str(plain)
    return yaml.safe_dump(plain, default_flow_style=True, width=1000, sort_keys=False).replace("\n...", "").strip()
