"""`kcm config`: what a configuration can say."""

from __future__ import annotations

import inspect
import json
from contextlib import suppress
from typing import Annotated, Any, TypeAlias, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from kcm.components import FAMILIES, Component, Family, KnownComponent
from kcm.config import Config
from kcm.extras import MissingExtraError


def config(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON Schema instead, by which editors complete and check YAML.")
    ] = False,
) -> dict[str, Any]:
    """Print the reference of every configuration key as Markdown, with the components that are installed."""
    from pipelines.config import RunConfig  # torch

    result = configuration_schema(RunConfig) if schema else {"markdown": configuration_reference(RunConfig)}
    typer.echo(json.dumps(result, indent=2) + "\n" if schema else result["markdown"], nl=False)
    return result


_FORM = "$form"  # a reference to a form of a component, which pydantic would look for among its own


class _ComponentSchema(GenerateJsonSchema):
    """Writes a field that takes any component of a family as a choice among the known ones, or a class of one's own."""

    def function_plain_schema(self, schema: Any) -> dict[str, Any]:
        """The choice, for the one validator that takes components; other plain validators take anything."""
        component = getattr(schema["function"]["function"], "__self__", None)
        if not (isinstance(component, type) and issubclass(component, Component)):
            return {}
        family = component.family
        own = {
            "type": "object",
            "required": [family.tag],
            "properties": {family.tag: {"type": "string", "pattern": ":"}},
        }
        return {"anyOf": [*({_FORM: f"#/$defs/{_class_name(known)}"} for known in _installed(family)), own]}


def configuration_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a run's configuration, with the forms of all known components that are installed."""
    schema = model.model_json_schema(schema_generator=_ComponentSchema)
    definitions = schema.setdefault("$defs", {})
    for family in FAMILIES.values():
        for known in _installed(family):
            form = family.load(known.path).model_json_schema(schema_generator=_ComponentSchema)
            definitions |= form.pop("$defs", {})
            form["properties"][family.tag] = {"const": known.tag}
            if known.tag != family.default:
                form["required"] = sorted({*form.get("required", ()), family.tag})
            definitions[_class_name(known)] = form
    written = json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema)
    return json.loads(written.replace(f'"{_FORM}":', '"$ref":'))


def _installed(family: Family) -> list[KnownComponent]:
    """The known components of a family, without those of an extra that is not installed."""
    components: list[KnownComponent] = []
    for known in family.known():
        with suppress(MissingExtraError):
            family.load(known.path)
            components.append(known)
    return components


def _class_name(known: KnownComponent) -> str:
    return known.path.partition(":")[2]


HEAD = """# Configuration

One YAML file describes a run; any key can be overridden on the command line by `--set key.path=value`.
An unknown key is an error that names the nearest known one. Every key stands here once: where several sections share
keys, the first one explains them.
"""
Row: TypeAlias = tuple[str, str, str, str]
"""Cells of a key: name, type, default and meaning."""

_TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_LENGTHS = {"minItems": "at least", "minLength": "at least", "minProperties": "at least", "maxLength": "at most"}


def configuration_reference(model: type[BaseModel]) -> str:
    """Markdown of `model` and of every model below it, each once; a section with several forms gives one for each."""
    places: dict[type[BaseModel], list[str]] = {}
    _find(model, "", places, frozenset())
    lines, explained = [HEAD], dict[Row, str]()
    for part, paths in places.items():
        form = f" with `{part.family.tag}: {_tag(part)}`" if issubclass(part, Component) else ""
        ordered = sorted(set(paths), key=lambda path: (len(path), path))
        heading = (", ".join(f"`{path}`" for path in ordered) if all(paths) else "The run") + form
        lines += [f"## {heading}\n", f"{_prose(part)}\n"]
        rows, shared = [_row(part, name) for name in part.model_fields], dict[str, list[str]]()
        for row in (row for row in rows if row in explained):
            shared.setdefault(explained[row], []).append(row[0])
        lines += [f"{', '.join(keys)}: as in “{section}”.\n" for section, keys in shared.items()]
        if new := [row for row in rows if row not in explained]:
            lines.append("| key | type | default | meaning |\n|---|---|---|---|")
            lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in new]
            lines.append("")
        explained |= dict.fromkeys(new, heading)
    return "\n".join(lines)


def _find(model: type[BaseModel], path: str, places: dict[type[BaseModel], list[str]], above: frozenset[str]) -> None:
    """The paths of the sections that a model and those below it explain, in the order of their keys."""
    places.setdefault(model, []).append(path)
    for name, field in model.model_fields.items():
        for part in _models(field.annotation):
            family = part.family.name if issubclass(part, Component) else ""
            if family not in above:  # the forms of a component within one of its family are those above
                _find(part, f"{path}.{name}" if path else name, places, above | {family} - {""})


def _row(model: type[BaseModel], name: str) -> Row:
    field = model.model_fields[name]
    if issubclass(model, Component) and name == model.family.tag:
        forms = ", ".join(f"`{known.tag}`" for known in model.family.known())
        default = f"`{model.family.default}`" if model.family.default else "**required**"
        return f"`{name}`", f"one of {forms}, or `package.module:Class`", default, "Chooses the form of the section."
    models = _models(field.annotation)
    annotation: Any = Annotated[field.annotation, field, *field.metadata]
    kind: TypeAdapter[Any] = TypeAdapter(annotation)
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    default = "**required**" if field.is_required() else f"`{_yaml(kind.dump_python(value, mode='json'))}`"
    if isinstance(value, BaseModel):
        default = f"`{_yaml(chosen)}`" if (chosen := _differences(value)) else "see there"
    meaning = field.description or ("One of the forms below." if models[1:] else _prose(models[0]) if models else "")
    return f"`{name}`", _section_type(field.annotation) if models else _type(kind.json_schema()), default, meaning


def _section_type(annotation: Any) -> str:
    """What stands for a section, a list of sections, or a section that may be absent."""
    if type(None) in get_args(annotation):
        return "section or null"
    return "list of section" if get_origin(annotation) in (list, tuple) else "section"


def _differences(section: BaseModel) -> dict[str, Any]:
    """What a default section says beyond its model's own defaults, with the tag of a component."""
    kind = type(section)
    tag = {kind.family.tag: _tag(kind)} if issubclass(kind, Component) else {}
    return tag | section.model_dump(mode="json", exclude_unset=True)


def _type(schema: dict[str, Any]) -> str:
    """A type as a person writes it: `integer ≥ 1`, `list of text`, `one of a, b`."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if "enum" in schema:
        return "one of " + ", ".join(f"`{_yaml(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    bounds = [f"{sign} {schema[bound]:g}" for bound, sign in _BOUNDS.items() if bound in schema]
    bounds += [f"({word} {schema[length]})" for length, word in _LENGTHS.items() if length in schema]
    kind = schema.get("type", "")
    if kind == "array":
        items = schema.get("items") or schema["prefixItems"][0]
        return " ".join([f"list of {_type(items)}", *bounds])
    if kind == "object":
        values = schema.get("additionalProperties")
        return " ".join([f"map of {_type(values)}" if isinstance(values, dict) else "map", *bounds])
    return " ".join([_TYPES.get(kind, "any value"), *bounds])


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return list(annotation.forms()) if issubclass(annotation, Config) else [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _tag(model: type[Component]) -> str:
    """The name that chooses a component in a configuration."""
    path = f"{model.__module__}:{model.__qualname__}"
    return next((known.tag for known in model.family.known() if known.path == path), path)


def _prose(model: type) -> str:
    """The first paragraph of a class's docstring."""
    return " ".join((inspect.getdoc(model) or "").partition("\n\n")[0].split())


def _yaml(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).replace("\n...", "").strip()
