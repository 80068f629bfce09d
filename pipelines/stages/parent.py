"""The version whose task sequence a run continues: its bundle, and the artefacts from which the bundle was made."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import bundle_digest
from kcm.errors import ArtefactError, KcmError
from kcm.parquet import read_table, write_table
from kcm.tasks.shards import GROUP_ROWS
from pipelines.context import Attempt
from pipelines.registry.champion import BUNDLE, REGISTER, Champion, Pointer
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.store.artefact import Artefact, ArtefactStore
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.sequence import SequenceArtefact, ShardedArtefact
from pipelines.training.artefacts import TunedArtefact


class BundleArtefact(Artefact):
    """A bundle."""

    kind = "bundle"

    @property
    def bundle(self) -> Path:
        """The bundle's folder."""
        return self.folder / BUNDLE


@dataclass(frozen=True)
class Parent:
    """A registered version: the artefact of stage `register`, and the bundle in it.

    A run that continues it leaves out the `forgotten_rows`, which were deleted from the log.
    """

    artefact: BundleArtefact
    bundle: Bundle
    version: str
    forgotten_rows: frozenset[str] = frozenset()

    @classmethod
    def of(cls, store: ArtefactStore, champion: Champion) -> Self:
        """The parent that `champion` names. ArtefactError if its bundle is missing or differs."""
        artefact = store.named(REGISTER, champion.bundle).as_a(BundleArtefact)
        if (digest := bundle_digest(artefact.bundle)) != champion.digest:
            raise ArtefactError(
                f"the bundle of {champion.version} is another one: {digest[:12]}, not {champion.digest[:12]}",
                where=str(artefact.bundle),
                hint="Restore it, or `kcm promote` another version",
            )
        return cls(artefact, Bundle.read(artefact.bundle), champion.version)

    @classmethod
    def newest(cls, config_name: str, store: ArtefactStore, version: str | None = None) -> Self:
        """The registered version of this number of a run, by default the newest, promoted or not.

        KcmError if there is none.
        """
        registered = Pointer(store.control, config_name).registered()
        number = version and version.rpartition("/")[2]
        for candidate in reversed(registered):
            if number in (None, candidate.number):
                return cls.of(store, candidate)
        names = ", ".join(candidate.version for candidate in registered)
        raise KcmError(
            f"there is no version {number} to append to" if number else "there is no version to append to",
            where=config_name,
            hint=f"Name one of {names}" if names else "`kcm run CONFIG` makes the first one",
        )

    @cached_property
    def features(self) -> FeaturesArtefact:
        """The features on which it was trained."""
        return self.artefact.source(FeaturesArtefact, "features")

    @cached_property
    def outcomes(self) -> OutcomesArtefact:
        """The large model's answers to the same rows."""
        return self.artefact.source(OutcomesArtefact, "outcomes")

    @property
    def sequence(self) -> SequenceArtefact:
        """Its task sequence."""
        return self.features.sequence

    @cached_property
    def tuned(self) -> TunedArtefact:
        """Its networks, gates and policies, by collaborator."""
        return self.artefact.source(TunedArtefact, "tune")

    @cached_property
    def collaborator(self) -> str:
        """The name of the collaborator whose cascade is in the bundle."""
        return self.artefact.source(EvaluatedArtefact, "evaluate").deployed


def inherit(
    attempt: Attempt,
    earlier: ShardedArtefact,
    *,
    without: Collection[str] = (),
    forgotten_rows: Collection[str] = (),
) -> None:
    """Add the files of a finished artefact, except the named ones, to an attempt, inside the storage.

    Shards with `forgotten_rows` are written again without them.
    """
    excluded = {*without}
    for name in earlier.all_shards if forgotten_rows else ():
        rows = read_table(earlier.file(name))
        remaining_rows = rows.filter(pc.invert(pc.is_in(rows["id"], pa.array(sorted(forgotten_rows)))))
        if len(remaining_rows) < len(rows):
            write_table(remaining_rows, attempt.folder / name, row_group_size=GROUP_ROWS)
            excluded.add(name)
    attempt.take({name: earlier.path / name for name in earlier.manifest["files"] if name not in excluded})


def new_shards(artefact: ShardedArtefact, earlier: ShardedArtefact | None) -> dict[str, Path]:
    """The shards of the tasks that `earlier` lacks, by the names of their files."""
    known = earlier.all_shards if earlier else ()
    return {name: path for name, path in artefact.all_shards.items() if name not in known}
