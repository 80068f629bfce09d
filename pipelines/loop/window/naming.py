"""Names that people give to new classes in the traffic: one file, out and back in.

Naming is an act of the operator, recorded in the storage. In the next `kcm update` the large model answers with the
longer list, and the challenger learns the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kcm.errors import ConfigError
from kcm.inputs.visible import shown
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

    def write(self, file: Path, known_labels: Sequence[str], seen: Mapping[str, int]) -> None:
        """Write all labels, one a line, and as comments the unknown labels that callers gave, with their counts."""
        unknown = [f"# {shown(label)}  ({count} labels in feedback)" for label, count in seen.items()]
        lines = [*known_labels, *(label for label in self.labels() if label not in known_labels), *unknown]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def read(self, file: Path, known_labels: Sequence[str]) -> None:
        """Name the labels that a file adds to the known ones, and withdraw named ones that it lacks.

        Raises ConfigError, and changes nothing, for a file without a known label, or with a name that exists in any
        spelling.
        """
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        self.replace([line for line in lines if line and not line.startswith("#")], known_labels, where=str(file))

    def replace(self, labels: Sequence[str], known_labels: Sequence[str], *, where: str) -> None:
        """Name what `labels` adds to the known ones, and withdraw named labels that it lacks; raises as `read`."""
        hint = "Nothing was named: mend the file and start again"
        if missing := [label for label in known_labels if label not in labels]:
            fault = f"label {missing[0]!r} is missing, and a version has learned it"
            raise ConfigError(fault, where=where, hint="A learned label stays: put it back")
        spelled: dict[str, str] = {}
        for label in labels:
            if not (plain := _plain(label)):
                raise ConfigError(f"a label needs a letter or a digit: {label!r}", where=where, hint=hint)
            if plain in spelled:
                raise ConfigError(f"{label!r} and {spelled[plain]!r} are one label", where=where, hint=hint)
            spelled[plain] = label
        for label in self.labels():
            if label not in labels:
                self._say(label, "withdrawn")
        for label in labels:
            if label not in known_labels and label not in self.labels():
                self._say(label, "label")

    def _say(self, name: str, kind: str) -> None:
        self._journal.append(lambda _: {"name": name, "said": kind, "at": utc_now()})


def _plain(label: str) -> str:
    """A label without differences of case, spaces and punctuation."""
    return "".join(sign for sign in label.casefold() if sign.isalnum())
