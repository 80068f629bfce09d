"""Shared parts of commands: exit, options, the configuration of a run, and options from a model's fields."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, get_args

import typer

from jobs.exit import reported
from kcm.assets.resolve import assets_folder
from kcm.bundle import MANIFEST
from kcm.config import Config, parse_config, read_values
from kcm.errors import ArtefactError, KcmError
from kcm.local_files import require_writable

if TYPE_CHECKING:
    from kcm.inputs.location import Location
    from pipelines.config import RunConfig

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The run's YAML file; `kcm init TABLE` writes one.")]
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
    Path, typer.Option(envvar="KCM_ASSETS", metavar="DIR", parser=assets_folder, help="Folder or bucket of the assets.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

if TYPE_CHECKING:
    Run: TypeAlias = RunConfig
else:
    Run = Annotated[ConfigFile, "loaded"]  # by `command`

_METAVARS = {str: "MODEL", float: "X"}  # the one string among these fields is an encoder

_BY_NAME = inspect.Parameter.KEYWORD_ONLY

Body: TypeAlias = Callable[..., dict[str, Any]]
BodyT = TypeVar("BodyT", bound=Callable[..., Any])
ModelT = TypeVar("ModelT", bound=Config)


def load(config: Path, overrides: list[str] | None) -> RunConfig:
    """The configuration of a run in the file `config`, with `overrides`; imports the packages of a run."""
    values = read_values(config, overrides or ())
    from pipelines.config import RunConfig  # torch and Ray, once the file could be read

    return parse_config(RunConfig, values, where=str(config))


def located(table: str) -> Location:
    """The place of a table. Raises KcmError for a local file that does not exist, before any slow import."""
    from kcm.inputs.location import Location  # pyarrow

    location = Location.of(table)
    if location.is_local and not Path(location.path).is_file():
        raise KcmError("a folder, not a file" if Path(location.path).is_dir() else "no such file", where=table)
    return location


def require_free(bundle: Path, option: str) -> None:
    """Raise ArtefactError, before the work, if the place of a new bundle holds something else or cannot be written."""
    hint = f"Name another {option}"
    if bundle.exists() and not (bundle / MANIFEST).is_file():
        raise ArtefactError("something else lies where the bundle goes", where=str(bundle), hint=hint)
    require_writable(bundle.parent, hint)


class CommandGroup(typer.Typer):
    """A group of commands, also with a single command."""

    def __init__(self, words: str) -> None:
        super().__init__(
            help=words, no_args_is_help=True, add_completion=False, rich_markup_mode=None, callback=lambda: None
        )

    def add(self, body: Body) -> Body:
        """Add a function to the group as a command, see `command`."""
        self.command()(command(body))
        return body


def is_asked() -> bool:
    """Whether a person at the terminal can answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def command(body: Body) -> Callable[..., None]:
    """A command with --json, which writes the result of its body, and --debug; it exits through `reported`.

    For a parameter of the type `Run`, the command line has CONFIG and --set, and the body gets the configuration.
    """

    def wrapped(json: Path | None, debug: bool, **arguments: Any) -> None:
        with reported(json, debug) as result:
            if run:
                arguments[run] = load(arguments[run], arguments.pop("overrides"))
            result |= body(**arguments)

    body_parameters = _parameters(body)
    run = next((p.name for p in body_parameters if p.annotation == Run), None)
    common_options: list[tuple[str, Any, Any]] = [("overrides", None, Overrides)] if run else []
    common_options += [("json", None, JsonFile), ("debug", False, Debug)]
    options = [
        inspect.Parameter(name, _BY_NAME, default=value, annotation=kind) for name, value, kind in common_options
    ]
    return _with_parameters(wrapped, body, [*body_parameters, *options])


def options_of(model: type[ModelT], parameter: str) -> Callable[[Body], Body]:
    """Replace `parameter` of a command by one option per field of `model`; the command gets a dict of the values.

    A field with default None is in the dict only if its option is set.
    """

    def decorate(body: Body) -> Body:
        names = list(model.model_fields)

        def wrapped(**arguments: Any) -> dict[str, Any]:
            option_values = {name: arguments.pop(name) for name in names}
            arguments[parameter] = {name: value for name, value in option_values.items() if value is not None}
            parse_config(model, arguments[parameter], name="option")  # raises before the body's imports
            return body(**arguments)

        options = [_option(model, name) for name in names]
        replaced = (options if p.name == parameter else [p] for p in _parameters(body))
        return _with_parameters(wrapped, body, [*chain.from_iterable(replaced)])

    return decorate


def _parameters(body: Body) -> list[inspect.Parameter]:
    parameters = inspect.signature(body, eval_str=True).parameters.values()
    return [p.replace(kind=_BY_NAME) for p in parameters]


def _with_parameters(command_body: BodyT, body: Body, parameters: Sequence[inspect.Parameter]) -> BodyT:
    """A replacement for a function, with these parameters."""
    functools.update_wrapper(command_body, body)
    command_body.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command_body.__annotations__ = {p.name: p.annotation for p in parameters}
    return command_body


def _option(model: type[Config], name: str) -> inspect.Parameter:
    """The option of one field."""
    field = model.model_fields[name]
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    kind: Any = kinds[0] if isinstance(field.annotation, UnionType) else field.annotation
    option = typer.Option(f"--{name.replace('_', '-')}", metavar=_METAVARS.get(kind), help=field.description)
    annotation: Any = Annotated[kind if field.default is not None else kind | None, option]
    return inspect.Parameter(name, _BY_NAME, default=field.default, annotation=annotation)
