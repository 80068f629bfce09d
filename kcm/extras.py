"""Extras of the installation: the packages that the base does without, and the line that says what to install."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from kcm.errors import ConfigError

EXTRAS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "ray": frozenset({"fastapi", "fastapi_offline", "mlflow", "optuna", "psutil", "ray", "starlette"}),
        "onnx": frozenset({"onnx", "onnxruntime"}),
        "hub": frozenset({"datasets"}),
        "plot": frozenset({"matplotlib"}),
    }
)
"""Names of the modules that each extra brings, and code of the base imports nowhere or only when it needs them."""


class MissingExtraError(ConfigError, ImportError):
    """Something needs a package that an extra of the installation brings."""


def require(module: str, feature: str) -> None:
    """Raise MissingExtraError if a module of an extra is not installed; `feature` is what needs it."""
    if find_spec(module) is None:
        raise _missing_extra(module, feature)


@contextmanager
def naming_extra(feature: str) -> Iterator[None]:
    """Within the block an import of what is not installed raises MissingExtraError, if an extra brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if _extra_of(module):
            raise _missing_extra(module, feature) from None
        raise


def load(target: str, feature: str) -> Any:
    """The object `module:name` of a part that an extra brings. Raises MissingExtraError where it is not installed."""
    module, _, name = target.partition(":")
    with naming_extra(feature):
        return getattr(import_module(module), name)


def _extra_of(module: str) -> str | None:
    return next((extra for extra, modules in EXTRAS.items() if module in modules), None)


def _missing_extra(module: str, feature: str) -> MissingExtraError:
    hint = f"pip install 'kcm-cascade[{_extra_of(module)}]'"
    return MissingExtraError(f"{feature} needs {module}, which is not installed", hint=hint)
