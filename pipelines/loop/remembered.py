"""Who still holds what was deleted from the log: versions that learned it, and artefacts with its rows.

The next update trains without it. What earlier versions hold stays until their artefacts are deleted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kcm.errors import ArtefactError
from pipelines.loop.stages.window import ROWS, Window
from pipelines.loop.state import LoopState
from pipelines.loop.units import rows_of
from pipelines.stages.register import BundleArtefact, Register
from pipelines.store.features import FeaturesArtefact


@dataclass(frozen=True)
class Remembered:
    """The versions that were trained on forgotten units, or may have been, and the folders that hold rows of them."""

    versions: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()


def remembered(state: LoopState, key: bytes, units: Collection[str]) -> Remembered:
    """What holds these units, by their names in the log that has this key."""
    versions, unreadable, folders = list[str](), list[str](), dict[Path, None]()
    for version, bundle in state.bundles().items():
        try:
            artefact = state.store.named(Register.stage, bundle).as_a(BundleArtefact)
            sequence = artefact.source(FeaturesArtefact, "features").sequence
            if rows_of(sequence, key, units):
                versions.append(version)
                folders[sequence.folder] = None
        except (ArtefactError, OSError):
            unreadable.append(version)
    for window in state.store.finished(Window.stage):
        held = pq.read_table(window.folder / ROWS, columns=["unit"])["unit"]
        if pc.any(pc.is_in(held, pa.array(units, pa.string()))).as_py():
            folders[window.folder] = None
    return Remembered(tuple(versions), tuple(unreadable), tuple(folders))
