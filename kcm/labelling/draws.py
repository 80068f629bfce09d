"""Draws on disk: a job that was killed finishes the draw that it began, from the very ranking that was drawn from.

A draw that is planned again, with some of its answers known, would certify nothing.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from kcm.durable import replace_durably
from kcm.errors import ArtefactError

Arrays = dict[str, NDArray[Any]]


class DrawFile:
    """The draws of one job, each a file of arrays in a folder of its own; number 0 is the choice before the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, number: int) -> Arrays | None:
        """Draw `number`, None if it has not begun. Raises ArtefactError if it is damaged."""
        path = self._path(number)
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
            hint = "Delete its folder to draw again, by the next look; paid answers are kept"
            raise ArtefactError(f"a draw is damaged: {error}", where=str(path), hint=hint) from None

    def write(self, number: int, arrays: Arrays) -> None:
        """Put a draw on disk before it is bought."""
        path = self._path(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}")
        np.savez_compressed(draft, **arrays)  # type: ignore[arg-type]
        replace_durably(draft, path)

    def _path(self, number: int) -> Path:
        return self._folder / f"draw_{number}.npz"


def digest_of(arrays: Arrays) -> str:
    """The digest of a draw."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
