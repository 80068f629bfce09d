"""What commands share: options, the configuration that CONFIG names, and options made from a model's fields."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from kcm.assets.remote import assets_folder
from kcm.config import Config, load_config

if TYPE_CHECKING:
    from pipelines.config import RunConfig

ConfigFile = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The run's YAML file, such as `kcm init TABLE` writes.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a value of CONFIG; repeatable.")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the result, or the error, as JSON.")
]
BundleSource = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or models:/NAME@ALIAS or models:/NAME/VERSION.")
]
AssetsPath = Annotated[
    Path,
    typer.Option(envvar="KCM_ASSETS", metavar="DIR", parser=assets_folder, help="Folder or bucket of the assets."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

_METAVARS = {str: "COLUMN", list[str]: "COLUMN", float: "X"}  # the strings of all these models are columns' names

ModelT = TypeVar("ModelT", bound=Config)


def load(config: Path, overrides: list[str] | None) -> RunConfig:
    """The configuration of a run in the file `config`, with `overrides`; imports what a run needs."""
    from pipelines.config import RunConfig

    return load_config(RunConfig, config, overrides or ())


def command_group(words: str) -> typer.Typer:
    """A group of commands, one even where it has a single one."""
    return typer.Typer(
        help=words, no_args_is_help=True, add_completion=False, rich_markup_mode=None, callback=lambda: None
    )


def is_asked() -> bool:
    """Whether a person at a terminal can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def options_of(model: type[ModelT], parameter: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace `parameter` of a command by one option per field of `model`; the command gets a dict of their values.

    A field whose default is None is in the dict only if its option is set. A field of tuples becomes a repeatable
    option.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        names = list(model.model_fields)

        @functools.wraps(command)
        def wrapped(**arguments: Any) -> None:
            chosen = {name: arguments.pop(name) for name in names}
            command(**arguments, **{parameter: {name: value for name, value in chosen.items() if value is not None}})

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own if p.name != parameter]
        first = next(place for place, p in enumerate(own) if p.name == parameter)
        parameters[first:first] = [_option(model, name) for name in names]
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate


def _option(model: type[Config], name: str) -> inspect.Parameter:
    """The option of one field; an empty default is None, so that a command knows which options are set."""
    field = model.model_fields[name]
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    kind: Any = kinds[0] if isinstance(field.annotation, UnionType) else field.annotation
    if field.annotation == tuple[str, ...]:
        kind = list[str]
    option = typer.Option(f"--{name.replace('_', '-')}", metavar=_METAVARS.get(kind), help=field.description)
    default = None if field.default == () else field.default
    annotation: Any = Annotated[kind if default is not None else kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
