"""`kcm config`: the reference of all configuration keys."""

from __future__ import annotations

import inspect
import json
from contextlib import suppress
from typing import Annotated, Any, TypeAlias, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from kcm.components import FAMILIES, Component, Family
from kcm.config import Config
from kcm.extras import MissingExtraError


def config(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print a JSON Schema instead, with which editors complete and check YAML.")
    ] = False,
) -> dict[str, Any]:
    """Print the reference of every configuration key.

    As Markdown, with all installed components.
    """
    from pipelines.config import RunConfig  # torch

    result = configuration_schema(RunConfig) if schema else {"markdown": configuration_reference(RunConfig)}
    typer.echo(json.dumps(result, indent=2) + "\n" if schema else result["markdown"], nl=False)
    return result


_FORM = "$form"  # a reference to a form of a component; pydantic would look it up among its own


class _ComponentSchema(GenerateJsonSchema):
    """Writes a field for any component of a family as a choice: a known component, or the user's own class."""

    def function_plain_schema(self, schema: Any) -> dict[str, Any]:
        """The choice, for the validator that takes components; other plain validators take anything."""
        component = getattr(schema["function"]["function"], "__self__", None)
        if not (isinstance(component, type) and issubclass(component, Component)):
            return {}
        family = component.family
        class_schema = {
            "type": "object",
            "required": [family.tag],
            "properties": {family.tag: {"type": "string", "pattern": ":"}},
        }
        forms = [{_FORM: f"#/$defs/{form.__name__}"} for form in _installed(family).values()]
        return {"anyOf": [*forms, class_schema]}


def configuration_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a run's configuration, with the forms of all installed components."""
    schema = model.model_json_schema(schema_generator=_ComponentSchema)
    definitions = schema.setdefault("$defs", {})
    for family in FAMILIES.values():
        for tag, component in _installed(family).items():
            form = component.model_json_schema(schema_generator=_ComponentSchema)
            definitions |= form.pop("$defs", {})
            form["properties"][family.tag] = {"const": tag}
            if tag != family.default:
                form["required"] = sorted({*form.get("required", ()), family.tag})
            definitions[component.__name__] = form
    text = json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema)
    return json.loads(text.replace(f'"{_FORM}":', '"$ref":'))


def _installed(family: Family) -> dict[str, type[Component]]:
    """The known components of a family by tag, without components of extras that are not installed."""
    components: dict[str, type[Component]] = {}
    for tag, path in family.known().items():
        with suppress(MissingExtraError):
            components[tag] = family.load(path)
    return components


HEAD = """# Configuration

One YAML file describes a run; any key can be overridden on the command line by `--set key.path=value`.
An unknown key is an error that names the nearest known key. Every key is listed once: if several sections share keys,
the first one explains them.
"""
Row: TypeAlias = tuple[str, str, str, str]
"""Cells of a key: name, type, default and meaning."""

_TYPES = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "null": "null"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_LENGTHS = {"minItems": "at least", "minLength": "at least", "minProperties": "at least", "maxLength": "at most"}


def configuration_reference(model: type[BaseModel]) -> str:
    """Markdown of `model` and of every model below it, each once, and one part per form of a section."""
    places: dict[type[BaseModel], list[str]] = {}
    _find(model, "", places, frozenset())
    lines, explained = [HEAD], dict[Row, str]()
    for part, paths in places.items():
        form = f" with `{part.family.tag}: {_tag(part)}`" if issubclass(part, Component) else ""
        sorted_paths = sorted(set(paths), key=lambda path: (len(path), path))
        heading = (", ".join(f"`{path}`" for path in sorted_paths) if all(paths) else "The run") + form
        lines += [f"## {heading}\n", f"{_prose(part)}\n"]
        rows, shared_rows = [_row(part, name) for name in part.model_fields], dict[str, list[str]]()
        for row in (row for row in rows if row in explained):
            shared_rows.setdefault(explained[row], []).append(row[0])
        lines += [f"{', '.join(keys)}: as in “{section}”.\n" for section, keys in shared_rows.items()]
        if new := [row for row in rows if row not in explained]:
            lines.append("| key | type | default | meaning |\n|---|---|---|---|")
            lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in new]
            lines.append("")
        explained |= dict.fromkeys(new, heading)
    return "\n".join(lines)


def _find(
    model: type[BaseModel], path: str, places: dict[type[BaseModel], list[str]], ancestors: frozenset[str]
) -> None:
    """The paths of the sections that a model, or a model below it, explains, in the order of their keys."""
    places.setdefault(model, []).append(path)
    for name, field in model.model_fields.items():
        for part in _models(field.annotation):
            family = part.family.name if issubclass(part, Component) else ""
            if family not in ancestors:  # the forms of a component inside its own family are listed above
                _find(part, f"{path}.{name}" if path else name, places, ancestors | {family} - {""})


def _row(model: type[BaseModel], name: str) -> Row:
    field = model.model_fields[name]
    if issubclass(model, Component) and name == model.family.tag:
        forms = ", ".join(f"`{tag}`" for tag in model.family.known())
        default = f"`{model.family.default}`" if model.family.default else "**required**"
        return f"`{name}`", f"one of {forms}, or `package.module:Class`", default, "Chooses the form of the section."
    models = _models(field.annotation)
    annotation: Any = Annotated[field.annotation, field, *field.metadata]
    kind: TypeAdapter[Any] = TypeAdapter(annotation)
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    default = "**required**" if field.is_required() else f"`{_yaml(kind.dump_python(value, mode='json'))}`"
    if isinstance(value, BaseModel):
        default = f"`{_yaml(difference)}`" if (difference := _differences(value)) else "see there"
    meaning = field.description or ("One of the forms below." if models[1:] else _prose(models[0]) if models else "")
    return f"`{name}`", _section_type(field.annotation) if models else _type(kind.json_schema()), default, meaning


def _section_type(annotation: Any) -> str:
    """The text for a section, a list of sections, or an optional section."""
    if type(None) in get_args(annotation):
        return "section or null"
    return "list of section" if get_origin(annotation) in (list, tuple) else "section"


def _differences(section: BaseModel) -> dict[str, Any]:
    """The values of a default section that differ from its model's own defaults, with the tag of a component."""
    kind = type(section)
    tag = {kind.family.tag: _tag(kind)} if issubclass(kind, Component) else {}
    return tag | section.model_dump(mode="json", exclude_unset=True)


def _type(schema: dict[str, Any]) -> str:
    """A type in words: `integer ≥ 1`, `list of text`, `one of a, b`."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type, schema["anyOf"])))
    if "enum" in schema:
        return "one of " + ", ".join(f"`{_yaml(value)}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    bounds = [f"{sign} {schema[keyword]:g}" for keyword, sign in _BOUNDS.items() if keyword in schema]
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
    return next((tag for tag, known_path in model.family.known().items() if known_path == path), path)


def _prose(model: type) -> str:
    """The first paragraph of a class's docstring."""
    return " ".join((inspect.getdoc(model) or "").partition("\n\n")[0].split())


def _yaml(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False).replace("\n...", "").strip()
