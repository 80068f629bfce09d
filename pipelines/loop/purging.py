"""Purging: what was deleted from the log is also removed from the artefacts of earlier versions, which stay served.

The next update trains without the deleted units. Earlier versions hold them until they are purged.

A version remembers a unit in its training rows, in everything made from these rows, and in the memory of its learner.
Purging empties these artefacts; bundles, figures and lineage stay. A window keeps its decisions as numbers without
content, like the log. The champion must already have been trained without the units.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from kcm.errors import ArtefactError, KcmError
from kcm.parquet import read_table, write_table
from pipelines.loop.challenger.ask_again import AskAgain
from pipelines.loop.challenger.grow import Grow
from pipelines.loop.state import LoopState
from pipelines.loop.window.judged_window import PAYLOAD
from pipelines.loop.window.stage import ROWS, LogWindow
from pipelines.stages.register import BundleArtefact, Register
from pipelines.stages.units import rows_of
from pipelines.store.artefact import Artefact
from pipelines.store.garbage import alone, empty, is_emptied, rewrite
from pipelines.store.sequence import SequenceArtefact

# What holds no content of rows: bundles and figures, with scores and answers by the ids of rows; windows are rewritten.
_KEPT = frozenset({"register", "evaluate", "reevaluate", "gates", "window", "ask_again"})
_SEQUENCES = ("grow", "tasks")
ERASED = (*PAYLOAD, "label")  # columns of a window with content


@dataclass(frozen=True)
class Purged:
    """The emptied artefacts, as STAGE/FINGERPRINT, and the windows whose content was erased."""

    emptied: list[str] = field(default_factory=list)
    windows: list[str] = field(default_factory=list)


def purge(state: LoopState, key: bytes, units: Collection[str]) -> Purged:
    """Remove these units, by their names in the log with this key, from all artefacts of an application.

    A killed purge resumes when it is called again. Raises KcmError, and changes nothing, if the champion still holds
    the units or a turn is running; LockedError while anything is being written.
    """
    purged = Purged()
    if not units:
        return purged
    with alone(state.store):
        if state.attempts.interrupted() is not None:
            raise KcmError("a turn was interrupted", where=state.name, hint="`kcm update` ends it; then purge")
        sequences = {sequence.fingerprint for sequence in _sequences(state) if _holds(sequence, key, units)}
        _require_other_champion(state, sequences)
        for artefact in state.store.finished(""):
            if artefact.stage not in _KEPT and not is_emptied(artefact) and _owner(artefact) in sequences:
                empty(state.store, artefact)
                purged.emptied.append(f"{artefact.stage}/{artefact.fingerprint}")
        for window in (artefact for stage in (LogWindow, AskAgain) for artefact in state.store.finished(stage.stage)):
            if _erase(state, window, units):
                purged.windows.append(f"{window.stage}/{window.fingerprint}")
    return purged


def _sequences(state: LoopState) -> Iterator[SequenceArtefact]:
    """The sequences on which versions of the application were trained, unpromoted challengers included."""
    sequences = {artefact.path: artefact for artefact in state.store.finished(Grow.stage)}
    for bundle in state.bundles().values():
        try:
            artefact = state.store.named(Register.stage, bundle)
            sequence: Artefact = artefact.source(SequenceArtefact, *_SEQUENCES)
        except (ArtefactError, OSError):
            continue  # removed together with everything it was made of
        sequences[sequence.path] = sequence
    return (artefact.as_a(SequenceArtefact) for artefact in sequences.values())


def _holds(sequence: SequenceArtefact, key: bytes, units: Collection[str]) -> bool:
    """Whether rows of these units are in a sequence, or were until it was emptied."""
    if is_emptied(sequence):
        return True  # a killed purge may have left what was made from it
    try:
        return bool(rows_of(sequence, key, units))
    except (ArtefactError, OSError):
        return True  # likewise


def _owner(artefact: Artefact) -> str | None:
    """The fingerprint of the sequence whose rows an artefact is about."""
    if artefact.stage in _SEQUENCES:
        return artefact.fingerprint
    try:
        return artefact.source(SequenceArtefact, *_SEQUENCES).fingerprint
    except (ArtefactError, OSError):
        return None


def _require_other_champion(state: LoopState, sequences: Collection[str]) -> None:
    champion = state.champions.present().champion
    bundle = state.store.named(Register.stage, champion.bundle).as_a(BundleArtefact)
    if _owner(bundle) in sequences:
        raise KcmError(
            f"{champion.version}, the champion, was trained on what is to be removed",
            where=state.name,
            hint="`kcm update` trains the next one without it; then purge",
        )


def _erase(state: LoopState, window: Artefact, units: Collection[str]) -> bool:
    """Erase the content of these units from a window; whether there was any."""
    table = read_table(window.folder / ROWS)
    is_purged = pc.fill_null(pc.is_in(table["unit"], pa.array(sorted(units))), False)
    erased = [name for name in ERASED if pc.any(pc.and_(is_purged, table[name].is_valid())).as_py()]
    if not erased:
        return False
    for name in erased:
        column = pc.if_else(is_purged, pa.scalar(None, table[name].type), table[name])
        table = table.set_column(table.column_names.index(name), name, column)

    def change(folder: Path) -> None:
        draft = folder / f".{ROWS}"
        write_table(table, draft)
        draft.replace(folder / ROWS)

    rewrite(state.store, window, change)
    return True
