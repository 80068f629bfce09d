"""Which values of a configuration are paths, and the same configuration for a process that works in another folder."""

from __future__ import annotations

import os
from glob import iglob
from pathlib import Path
from typing import Any, TypeVar

from kcm.config import Config

ConfigT = TypeVar("ConfigT", bound=Config)


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
