"""Names that people give to new classes in the traffic.

Naming is an act of the operator, recorded in the storage. In the next `kcm update` the large model answers with the
longer list, and the challenger learns the class.
"""

from __future__ import annotations

from collections.abc import Collection

from kcm.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.loop.state import LoopState
from pipelines.registry.champion import utc_now
from pipelines.store.records import Control, Journal


class ClassNames:
    """The labels that were named, in the store's control records; a name counts until it is withdrawn."""

    def __init__(self, control: Control, application: str) -> None:
        self._journal = Journal(control, f"loop/{application}/classes")

    @classmethod
    def of(cls, config: RunConfig) -> ClassNames:
        """The named labels of a run's application."""
        return cls(LoopState.of(config).store.control, config.name)

    def labels(self) -> tuple[str, ...]:
        """The named labels, in the order in which they were first named."""
        last_said = {entry["name"]: entry["said"] for entry in self._journal.entries()}
        return tuple(name for name, said in last_said.items() if said == "label")

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

    def withdraw(self, label: str) -> None:
        """Withdraw a name that no version has learned. ConfigError for any other name."""
        if label not in self.labels():
            hint = f"Known names: {', '.join(self.labels()) or 'none'}"
            raise ConfigError(f"nobody has named {label!r}", where="--withdraw", hint=hint)
        self._say(label, "withdrawn")

    def _say(self, name: str, kind: str) -> None:
        self._journal.append(lambda _: {"name": name, "said": kind, "at": utc_now()})


def _plain(label: str) -> str:
    """A label without differences of case, spaces and punctuation."""
    return "".join(sign for sign in label.casefold() if sign.isalnum())
