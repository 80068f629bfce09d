"""A source of texts in folders: LABEL/NAME.txt, as many corpora are handed on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from kcm.config import LocalPath
from kcm.errors import DataError
from kcm.tasks.rows import SourceRow, rows_of
from kcm.tasks.sources import Shard, Source, SourceConfig, refuse_vectors

FILES_AT_ONCE = 1000


class FoldersSource(SourceConfig):
    """A folder for each label, with a file for each text."""

    path: Annotated[str, LocalPath] = Field(description="Folder that holds the labels' folders.")

    def build(self, assets_dir: Path, vectors: Sequence[str] = ()) -> Source:
        refuse_vectors(vectors, self.kind)
        root = Path(self.path).expanduser()
        folders = sorted(root.glob("*/"))
        if not folders:
            raise DataError("no folder of a label is here", where=self.path, hint="Lay the texts out as LABEL/NAME.txt")
        shards = tuple(Folder(str(folder), folder) for folder in folders)
        return Source(name=root.name, shards=shards, labels=tuple(folder.name for folder in folders))


@dataclass(frozen=True)
class Folder(Shard):
    """The texts of one label; any node may read it."""

    where: str
    folder: Path

    def read(self) -> Iterator[pa.Table]:
        files = sorted(self.folder.glob("*.txt"))
        for start in range(0, len(files), FILES_AT_ONCE):
            yield rows_of([self._record(file) for file in files[start : start + FILES_AT_ONCE]])

    def _record(self, file: Path) -> SourceRow:
        """A row; of a file that is not UTF-8 a bad one, which is listed by its id."""
        label = self.folder.name
        text, fault = "", ""
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            fault = "not UTF-8"
        return SourceRow(id=f"{label}/{file.stem}", text=text, label=label, fault=fault)
