"""The commands as Python functions: `kcm.run`, `kcm.update` and `kcm.serve`, entry points of `kcm.verbs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from jobs.settings import ServiceSettings
from jobs.work.service import configured, prepared, serving
from jobs.work.turns import update as take_turn
from kcm.config import load_config, parse_config, read_values
from kcm.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.run import run as run_stages

Given: TypeAlias = str | Path | Mapping[str, Any] | RunConfig


def run(
    config: Given,
    overrides: Iterable[str] = (),
    *,
    until: str | None = None,
    promote: bool | None = None,
    append: str | None = None,
    parent: str | None = None,
) -> dict[str, Any]:
    """Like `kcm run`: all stages of a YAML file, or of a mapping with its content, up to `until`.

    `overrides` are `key.path=value`; `promote` is the command's `--promote/--no-promote`; `append` is a table to learn
    as the next task, of the version `parent` or else of the newest. Returns the content of result.json. Raises KcmError
    if the command would fail.
    """
    return run_stages(_config(config, overrides), until=until, promote=promote, append=append, parent=parent)


def update(config: Given, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """Like `kcm update`: one turn of the loop, in which the served cascade learns from its traffic.

    Returns the content of loop.json. Raises KcmError if the command would fail.
    """
    return take_turn(_config(config, overrides))


@contextmanager
def serve(
    config: Given | None = None,
    overrides: Iterable[str] = (),
    *,
    model: str | None = None,
    bundle: str | Path | None = None,
) -> Iterator[str]:
    """Like `kcm serve`, as a block: yields the URL of the ready service, which stops with the block.

    It serves the `bundle` in a folder, the registered `model` NAME@ALIAS or NAME/VERSION, or the champion. For a bundle
    or a model, the sections of a service suffice as configuration.
    """
    run, service_settings = (None, None) if config is None else _service(config, overrides)
    source, _, settings = prepared(run, Path(bundle) if bundle else None, model, service_settings)
    with serving(source, settings) as url:
        yield url


def _config(config: Given, overrides: Iterable[str]) -> RunConfig:
    if isinstance(config, str | Path):
        return load_config(RunConfig, Path(config), overrides)
    _refuse(overrides)
    return parse_config(RunConfig, config, where="config") if isinstance(config, Mapping) else config


def _service(config: Given, overrides: Iterable[str]) -> tuple[RunConfig | None, ServiceSettings | None]:
    if isinstance(config, str | Path):
        return configured(read_values(Path(config), overrides), str(config))
    _refuse(overrides)
    return configured(config, "config") if isinstance(config, Mapping) else (config, None)


def _refuse(overrides: Iterable[str]) -> None:
    """Raise ConfigError for overrides of a configuration that is no file."""
    if list(overrides):
        raise ConfigError("overrides need a file, but none is given", hint="Change the mapping")
