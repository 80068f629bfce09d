"""Names that people give to new classes in the traffic.

Naming is an act of the operator, recorded in the storage. In the next `kcm update` the large model answers with the
longer list, and the challenger learns the class.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from kcm.errors import ConfigError
from pipelines.config import RunConfig
from pipelines.loop.state import LoopState
from pipelines.loop.window.groups import ItemGroup
from pipelines.registry.champion import utc_now
from pipelines.store.control.journal import Journal
from pipelines.store.control.records import Control


class ClassNames:
    """Decisions about new classes in the traffic: new labels, names of known labels, and groups that are no class.

    They are in the store's control records. The latest decision about a name counts, until it is withdrawn. The labels
    in the configuration (`update.more_labels`) are `configured`.
    """

    def __init__(self, control: Control, application: str, configured: Sequence[str] = ()) -> None:
        self._journal = Journal(control, f"loop/{application}/classes")
        self._configured = configured

    @classmethod
    def of(cls, config: RunConfig) -> ClassNames:
        """The decisions for a run's application."""
        configured = config.update.more_labels if config.update else ()
        return cls(LoopState.of(config).store.control, config.name, configured)

    def labels(self) -> tuple[str, ...]:
        """The labels of the configuration, then named labels, in the order in which they were first named."""
        return tuple(dict.fromkeys((*self._configured, *(entry["name"] for entry in self._standing("label")))))

    def ignored(self) -> dict[str, list[float]]:
        """The centre of each group that is no class, by its proposed name."""
        return {entry["name"]: entry["centre"] for entry in self._standing("ignored")}

    def same(self) -> dict[str, str]:
        """The label for each name that is an alias of another label."""
        labels_by_name = {entry["name"]: entry["label"] for entry in self._standing("same")}
        return {name: labels_by_name.get(label, label) for name, label in labels_by_name.items()}

    def items(self) -> dict[str, str]:
        """The label of every item, by id, in the groups identified with an existing label."""
        return {item: entry["label"] for entry in self._standing("same") for item in entry["items"]}

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

    def identify(
        self, name: str, label: str, known_labels: Collection[str], groups: Collection[ItemGroup] = ()
    ) -> None:
        """Record that `name` means `label`: it is a group's proposed name, or callers' own word for the label.

        A label that was named but not learned becomes an alias of the other. ConfigError for an unknown label, and for
        a name that a version has learned.
        """
        if label not in (*known_labels, *self.labels()) or label == name:
            raise ConfigError(f"there is no label {label!r}", where="--is", hint="Name it first, by --name")
        if name in known_labels:
            hint = "Run `kcm run` again with rows in which they are one label"
            raise ConfigError(f"a version has learned {name!r} as a label of its own", where="--is", hint=hint)
        items = next((group.items for group in groups if group.proposal == name), [])
        self._say(name, "same", label=label, items=items)

    def ignore(self, name: str, groups: Collection[ItemGroup]) -> None:
        """Hide the group with this proposed name, and any group that is the same. ConfigError without such a group."""
        centre = next((group.centre for group in groups if group.proposal == name), None)
        if centre is None:
            raise ConfigError(f"no group has the proposed name {name!r}", where="--ignore", hint="`--new` shows them")
        self._say(name, "ignored", centre=centre)

    def withdraw(self, name: str) -> None:
        """Withdraw the decision about a name, as long as no version has learned it and no alias points to it.

        ConfigError for any other name.
        """
        standing = [entry["name"] for kind in ("label", "same", "ignored") for entry in self._standing(kind)]
        if name not in standing:
            hint = f"Known names: {', '.join(standing) or 'none'}"
            raise ConfigError(f"nobody has named or ignored {name!r}", where="--withdraw", hint=hint)
        if merged_names := [entry["name"] for entry in self._standing("same") if entry["label"] == name]:
            hint = "Withdraw the alias first"
            raise ConfigError(f"{', '.join(merged_names)} is an alias of {name!r}", where="--withdraw", hint=hint)
        self._say(name, "withdrawn")

    def without_ignored(self, groups: Collection[ItemGroup]) -> list[ItemGroup]:
        """The groups that match no ignored group of the same number of features."""
        ignored = self.ignored().values()
        return [group for group in groups if not any(group.is_one_with(centre) for centre in ignored)]

    def _standing(self, kind: str) -> list[dict[str, Any]]:
        last = {entry["name"]: entry for entry in self._journal.entries()}
        return [entry for entry in last.values() if entry["said"] == kind]

    def _say(self, name: str, kind: str, **fields: Any) -> None:
        self._journal.append(lambda _: {"name": name, "said": kind, "at": utc_now()} | fields)


def _plain(label: str) -> str:
    """A label without differences of case, spaces and punctuation."""
    return "".join(sign for sign in label.casefold() if sign.isalnum())
