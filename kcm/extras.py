"""Optional packages (extras), and the error that says which one to install."""

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
        "ray": frozenset({"fastapi", "fastapi_offline", "mlflow", "psutil", "ray", "starlette"}),
        "onnx": frozenset({"onnx", "onnxruntime"}),
        "hub": frozenset({"datasets"}),
        "plot": frozenset({"matplotlib"}),
    }
)
"""The modules of each extra; the base imports them never, or only when it needs them."""


class MissingExtraError(ConfigError, ImportError):
    """A package of an extra is needed and not installed."""


def require(module: str, feature: str) -> None:
    """Raise MissingExtraError if a module of an extra is not installed; `feature` is what needs it."""
    if find_spec(module) is None:
        raise _missing_extra(module, feature)


@contextmanager
def naming_extra(feature: str) -> Iterator[None]:
    """Within the block, a failed import of an extra's module raises MissingExtraError."""
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if _extra_of(module):
            raise _missing_extra(module, feature) from None
        raise


def load(target: str, feature: str) -> Any:
    """The object `module:name` of an extra's module. Raises MissingExtraError if it is not installed."""
    module, _, name = target.partition(":")
    with naming_extra(feature):
        return getattr(import_module(module), name)


def _extra_of(module: str) -> str | None:
    return next((extra for extra, modules in EXTRAS.items() if module in modules), None)


def _missing_extra(module: str, feature: str) -> MissingExtraError:
    hint = f"pip install 'kcm-cascade[{_extra_of(module)}]'"
    return MissingExtraError(f"{feature} needs {module}, which is not installed", hint=hint)
