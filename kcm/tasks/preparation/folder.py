"""The folder of a sequence that is being written: files by name, which any worker can read once another wrote them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa


@dataclass(frozen=True)
class SequenceFolder:
    """A folder that all workers see. A subclass may keep the files of `path` somewhere else."""

    path: Path

    @contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """A file to be written, which has its name once it is whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f".{uuid.uuid4().hex}"
        try:
            yield draft
            os.replace(draft, self.path / name)
        finally:
            draft.unlink(missing_ok=True)

    def open(self, name: str) -> pa.NativeFile:
        """A file that some worker wrote."""
        return pa.memory_map(str(self.path / name))

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that are needed no more."""
        for name in names:
            (self.path / name).unlink()

    def write_batches(self, name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Write tables in Arrow's file format, each as one record batch."""
        with self.new(name) as draft, pa.ipc.new_file(str(draft), schema) as writer:
            for table in tables:
                writer.write_table(table.combine_chunks())
