"""Names that people give to new classes in the traffic.

Naming is an act of the operator, recorded in the storage. In the next `kcm update` the large model answers with the
longer list, and the challenger learns the class.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from kcm.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.loop.state import LoopState
from pipelines.registry.champion import utc_now
from pipelines.store.records import Control, Journal


class ClassNames:
    """Decisions about new classes in the traffic: new labels, and names of known labels.

    They are in the store's control records. The latest decision about a name counts, until it is withdrawn.
    """

    def __init__(self, control: Control, application: str) -> None:
        self._journal = Journal(control, f"loop/{application}/classes")

    @classmethod
    def of(cls, config: RunConfig) -> ClassNames:
        """The decisions for a run's application."""
        return cls(LoopState.of(config).store.control, config.name)

    def labels(self) -> tuple[str, ...]:
        """The named labels, in the order in which they were first named."""
        return tuple(entry["name"] for entry in self._standing("label"))

    def same(self) -> dict[str, str]:
        """The label for each name that is an alias of another label."""
        labels_by_name = {entry["name"]: entry["label"] for entry in self._standing("same")}
        return {name: labels_by_name.get(label, label) for name, label in labels_by_name.items()}

    def name(self, label: str, known_labels: Collection[str]) -> None:
        """Name a new label. ConfigError for a blank name and for a name that exists in any spelling."""
        spelled = {_plain(spelling): spelling for spelling in (*known_labels, *self.labels())}
        if not _plain(label):
            raise ConfigError("a label needs a letter or a digit", where="--name")
        if (known_spelling := spelled.get(_plain(label))) is not None:
            raise ConfigError(
                f"there is a label {known_spelling!r} already",
                where="--name",
                hint="Give the existing label as feedback",
            )
        self._say(label, "label")

    def identify(self, name: str, label: str, known_labels: Collection[str]) -> None:
        """Record that `name`, a word of callers or a label that was named before, means `label`.

        A label that was named but not learned becomes an alias of the other. ConfigError for an unknown label, and for
        a name that a version has learned.
        """
        if label not in (*known_labels, *self.labels()) or label == name:
            raise ConfigError(f"there is no label {label!r}", where="--is", hint="Name it first, by --name")
        if name in known_labels:
            hint = "Run `kcm run` again with rows in which they are one label"
            raise ConfigError(f"a version has learned {name!r} as a label of its own", where="--is", hint=hint)
        self._say(name, "same", label=label)

    def withdraw(self, name: str) -> None:
        """Withdraw the decision about a name, as long as no version has learned it and no alias points to it.

        ConfigError for any other name.
        """
        standing = [entry["name"] for kind in ("label", "same") for entry in self._standing(kind)]
        if name not in standing:
            hint = f"Known names: {', '.join(standing) or 'none'}"
            raise ConfigError(f"nobody has named {name!r}", where="--withdraw", hint=hint)
        if merged_names := [entry["name"] for entry in self._standing("same") if entry["label"] == name]:
            hint = "Withdraw the alias first"
            raise ConfigError(f"{', '.join(merged_names)} is an alias of {name!r}", where="--withdraw", hint=hint)
        self._say(name, "withdrawn")

    def _standing(self, kind: str) -> list[dict[str, Any]]:
        last = {entry["name"]: entry for entry in self._journal.entries()}
        return [entry for entry in last.values() if entry["said"] == kind]

    def _say(self, name: str, kind: str, **fields: Any) -> None:
        self._journal.append(lambda _: {"name": name, "said": kind, "at": utc_now()} | fields)


def _plain(label: str) -> str:
    """A label without differences of case, spaces and punctuation."""
    return "".join(sign for sign in label.casefold() if sign.isalnum())
