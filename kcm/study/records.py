"""Finished cells on disk, one JSON file each, named by a fingerprint of all that decides the result."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from kcm.errors import ArtefactError
from kcm.study.cell import VERSION, Cell, Record, canonical
from kcm.study.settings import Setting


class Records:
    """The cells of any number of studies; a folder may be shared, also by studies that run at the same time."""

    def __init__(self, folder: Path) -> None:
        """Raise ArtefactError when the folder cannot be made."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtefactError(f"cannot make the folder: {error.strerror}", where=str(folder)) from None

    def get(self, fingerprint: str) -> Record | None:
        """The record of a finished cell; None where there is none, or where it is damaged."""
        try:
            record: Record = json.loads(self._path(fingerprint).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return record

    def put(self, fingerprint: str, record: Record) -> None:
        """Store a finished cell, whole or not at all."""
        path = self._path(fingerprint)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(record), encoding="utf-8")
        partial.replace(path)

    def _path(self, fingerprint: str) -> Path:
        return self.folder / f"{fingerprint}.json"


def cell_fingerprint(cell: Cell, setting: Setting | None, stream_fingerprint: str) -> str:
    """Hexadecimal digest of what decides the figures of a cell."""
    described = None if setting is None else setting.model_dump(mode="json")
    parts = [VERSION, cell.network, cell.learner, cell.memory_per_class, cell.seed, described, stream_fingerprint]
    return hashlib.sha256(canonical(parts)).hexdigest()[:32]
