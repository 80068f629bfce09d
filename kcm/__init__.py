"""KAN-based collaboration of small and large models: the method, without Ray or MLflow.

The names that a notebook needs are exported here and imported on first use: `import kcm` itself takes no time. Parts
that need Ray or MLflow are registered by other packages as entry points: verbs such as `kcm.run` in the group
`kcm.verbs`, and schemes of `kcm.load` such as `models:` in the group `kcm.schemes`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kcm.api.cascade import Cascade as Cascade
    from kcm.api.cascade import load as load
    from kcm.api.classifier import KANClassifier as KANClassifier
    from kcm.bundle.answers import Answer as Answer
    from kcm.bundle.answers import Failure as Failure
    from kcm.certification.scores import certify as certify
    from kcm.errors import KcmError as KcmError
    from kcm.kan import KAN as KAN
    from kcm.kan import KANLinear as KANLinear
    from kcm.labelling.label import label as label
    from kcm.labelling.scored import label_scored as label_scored

_MODULES = {
    "Answer": "kcm.bundle.answers",
    "Cascade": "kcm.api.cascade",
    "Failure": "kcm.bundle.answers",
    "KAN": "kcm.kan",
    "KANClassifier": "kcm.api.classifier",
    "KANLinear": "kcm.kan",
    "KcmError": "kcm.errors",
    "certify": "kcm.certification.scores",
    "label": "kcm.labelling.label",
    "label_scored": "kcm.labelling.scored",
    "load": "kcm.api.cascade",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        exported = getattr(import_module(_MODULES[name]), name)
    elif name == "__version__":
        from importlib.metadata import version

        exported = version("kcm-cascade")
    elif name.startswith("_") or (verb := _verbs().get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        from kcm.extras import naming_extra

        with naming_extra(f"kcm.{name}"):
            exported = verb.load()
    globals()[name] = exported
    return exported


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__", *_verbs()})


def _verbs() -> dict[str, Any]:
    """Entry points of the group `kcm.verbs` by name."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group="kcm.verbs")}
