"""The page on Python's names, made from their signatures and docstrings: `python -m jobs.pages python`."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, get_origin

from pydantic import BaseModel

import kcm
from jobs.configuration_page import table_of_keys
from kcm import errors
from kcm.bundle.answers import Input, Unreadable
from kcm.explain.explanation import Explanation
from kcm.inputs.content import Content
from kcm.large import UpstreamConfig
from kcm.routing.config import RequestConfig, RouteColumns

HEAD = """# Python reference

What `import kcm` offers, from its signatures and docstrings; [Python](python.md) is the guide, with examples. This page
is printed by `python -m jobs.pages python`.

Names of one word behind `kcm.` are the interface that versions keep; other classes here are what they take and give.
Shapes are letters at the end of a name or in brackets: N rows, D features, C labels.
"""
ERRORS = [each for each in vars(errors).values() if inspect.isclass(each) and each.__bases__ == (errors.KcmError,)]
GROUPS: dict[str, list[Any]] = {  # names of `import kcm`, and classes that these give or take
    "A trained cascade": [
        *("load", "Cascade", "Answer", "Failure", Unreadable, Explanation),
        *(Content, Input, UpstreamConfig),
    ],
    "A router": ["Router", RouteColumns, RequestConfig],
    "A classifier": ["KANClassifier"],
    "Networks": ["KAN", "KANLinear"],
    "Commands": ["run", "update", "serve"],
    "Errors": ["KcmError", *ERRORS],
}
GIVEN = {"Cascade"}  # by another name, and not constructed by callers
LEFT_OUT = {"extra_repr"}  # what torch asks of its modules
WIDTH = 88  # of a signature's line, that the site shows without scrolling

_STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
_WORD = re.compile(r"(?<![\w.\"'])[A-Za-z_]\w*")
_MODULE = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])")


def python_page() -> str:
    """Markdown of all names of `import kcm`, and of the errors."""
    lines = [HEAD]
    for group, names in GROUPS.items():
        lines += [f"## {group}", ""]
        for name in names:
            value = getattr(kcm, name) if isinstance(name, str) else name
            path = f"kcm.{name}" if isinstance(name, str) else f"{value.__module__}.{value.__name__}"
            lines += _class(path, value) if inspect.isclass(value) else _function(path, value, "###")
    return "\n".join(lines).rstrip("\n") + "\n"


def _class(path: str, value: type) -> Iterator[str]:
    yield f"### `{path}`\n"
    own, base = vars(value), value.__bases__[0]
    derived = f"({base.__name__})" if base.__module__.startswith("kcm.") else ""
    if issubclass(value, BaseModel):
        yield from markdown(inspect.getdoc(value) or "")
        yield from [*table_of_keys(value), ""]
        return
    if dataclasses.is_dataclass(value):
        yield _code([f"class {value.__name__}{derived}:", *_fields(value)])
    elif "__init__" in own and value.__name__ not in GIVEN:
        yield _code(_signature(value.__name__, own["__init__"]))
    elif derived:
        yield _code([f"class {value.__name__}{derived}"])
    yield from markdown(inspect.getdoc(value) or "")
    init = own.get("__init__")
    if init is not None and init.__doc__ and not dataclasses.is_dataclass(value):
        yield from markdown(inspect.cleandoc(init.__doc__))
    yield from _members(value)


def _members(value: type) -> Iterator[str]:
    """The public methods and properties that the class itself defines."""
    for name, member in vars(value).items():
        if name.startswith("_") or name in LEFT_OUT:
            continue
        if isinstance(member, property):
            yield f"#### `{value.__name__}.{name}`\n"
            yield _code([f"{name}: {_annotation(member.fget, 'return')}"])
            yield from markdown(inspect.getdoc(member) or "")
        elif isinstance(member, classmethod | staticmethod) or inspect.isfunction(member):
            function = member if inspect.isfunction(member) else member.__func__
            yield from _function(f"{value.__name__}.{name}", function, "####")


def _function(path: str, function: Any, heading: str) -> Iterator[str]:
    yield f"{heading} `{path}`\n"
    yield _code(_signature(path.rpartition(".")[2], function))
    yield from markdown(inspect.getdoc(function) or "")


def _fields(value: type) -> Iterator[str]:
    for field in dataclasses.fields(value):
        annotation = re.sub(r"^Annotated\[([^,]+),.*\]$", r"\1", str(field.type))
        default = "" if field.default is dataclasses.MISSING else f" = {_literal(field.default)}"
        yield f"    {field.name}: {_spelled(annotation, vars(sys.modules[value.__module__]))}{default}"


def _signature(name: str, function: Any) -> list[str]:
    """`name(parameters) -> result`, a parameter a line where one line is too long."""
    signature = inspect.signature(function)
    parameters = [each for each in signature.parameters.values() if each.name not in ("self", "cls")]
    words: list[str] = []
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY and "*" not in words and not any(word.startswith("*") for word in words):
            words.append("*")
        words.append(_parameter(each, function))
    result = "" if name[:1].isupper() or function.__name__ == "__init__" else f" -> {_annotation(function, 'return')}"
    line = f"{name}({', '.join(words)}){result}"
    return [line] if len(line) <= WIDTH else [f"{name}(", *(f"    {word}," for word in words), f"){result}"]


def _parameter(parameter: inspect.Parameter, function: Any) -> str:
    stars = _STARS.get(parameter.kind, "")
    word = f"{stars}{parameter.name}: {_annotation(function, parameter.name)}"
    return word if parameter.default is parameter.empty else f"{word} = {_literal(parameter.default)}"


def _annotation(function: Any, name: str) -> str:
    plain = inspect.unwrap(function)
    spelled = _spelled(str(plain.__annotations__[name]), plain.__globals__)
    if plain is not function and name == "return":  # by contextmanager
        return re.sub(r"^Iterator\[", "AbstractContextManager[", spelled)
    return spelled


def _spelled(annotation: str, names: dict[str, Any]) -> str:
    """An annotation as it is written, with its module's own aliases written out."""

    def meant(word: re.Match[str]) -> str:
        alias = names.get(word[0])
        if alias is str:
            return "str"
        return _MODULE.sub("", str(alias)) if isinstance(alias, UnionType) or get_origin(alias) is Literal else word[0]

    return _WORD.sub(meant, annotation).replace("'", '"')


def _literal(value: Any) -> str:
    return repr(value).replace("'", '"')


def _code(lines: list[str], language: str = "python") -> str:
    return "\n".join([f"```{language}", *lines, "```", ""])


def markdown(docstring: str) -> Iterator[str]:
    """A docstring's blocks as Markdown: paragraphs, formulas, examples, and numpydoc's sections as lists."""
    for block in re.split(r"\n\s*\n", docstring):
        lines = block.splitlines()
        if len(lines) > 1 and re.fullmatch(r"-{3,}", lines[1].strip()):
            yield f"**{lines[0]}**\n"
            lines = lines[2:]
            if lines and not lines[0].startswith(">>>"):
                yield "\n".join(_items(lines)) + "\n"
                continue
        if not lines:
            continue
        if lines[0].startswith(">>>"):
            yield _code(lines, "pycon")
        elif all(line.startswith("    ") for line in lines):
            yield _code(textwrap.dedent("\n".join(lines)).splitlines(), "text")
        else:
            yield " ".join(line.strip() for line in lines) + "\n"


def _items(lines: list[str]) -> Iterator[str]:
    """The entries `name : meaning` of a section, each with the indented lines that follow it."""
    entries: list[list[str]] = []
    for line in lines:
        if line.startswith(" ") and entries:
            entries[-1].append(line.strip())
        else:
            entries.append([line])
    for first, *more in entries:
        names, _, meaning = first.partition(" : ")
        named = ", ".join(f"`{name.strip()}`" for name in names.split(","))
        yield f"- {named}: {' '.join([meaning, *(['–', *more] if more else [])])}".rstrip(": ")
