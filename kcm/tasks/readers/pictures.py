"""Labelled pictures in folders: PATH/LABEL/picture.png, PATH/train/LABEL/picture.png, and the like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import Field

from kcm.config import LocalPath
from kcm.errors import DataError
from kcm.inputs.location import FoundFile, Location, naming_location
from kcm.tasks.rows import SourceRow, rows_of, split_name
from kcm.tasks.sources import Shard, Source, SourceConfig, refuse_vectors

Level = Literal["split", "task", "label"]
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
TABLE_BYTES, SHARD_BYTES = 32 << 20, 256 << 20  # of files that are one table, and one shard


class PicturesSource(SourceConfig):
    """A folder of pictures, here or at s3:// or gs://, whose folders say what they are. An id is the path below it."""

    path: Annotated[str, LocalPath] = Field(description="Folder, local, s3:// or gs://.")
    folders: tuple[Level, ...] | None = Field(
        default=None,
        description="What the folders from PATH on mean; null: [label], or [split, label] where the first are splits.",
    )
    labels: tuple[str, ...] = Field(default=(), description="The label list, in order; empty: all folders, sorted.")
    out_of_scope_label: str | None = Field(default=None, description="Label that means none of these.")

    def build(self, assets_dir: Path, vectors: Sequence[str] = ()) -> Source:
        refuse_vectors(vectors, "pictures")
        folder = Location.of(self.path)
        files = [file for file in folder.files(recursive=True) if file.location.suffix in SUFFIXES]
        if not files:
            raise DataError("the folder holds no picture", where=self.path, hint=f"Known are {', '.join(SUFFIXES)}")
        levels = self.folders or _levels(files)
        shards = [PicturesShard(str(folder), tuple(part), levels) for part in _parts(files, SHARD_BYTES)]
        return Source(folder.name, tuple(shards), self.labels, self.out_of_scope_label)


@dataclass(frozen=True)
class PicturesShard(Shard):
    """Some pictures of a folder; `levels` say what their folders mean."""

    where: str
    files: tuple[FoundFile, ...]
    levels: tuple[Level, ...]

    def read(self) -> Iterator[pa.Table]:
        """The pictures, some megabytes at a time; one that cannot be read is at fault."""
        for part in _parts(self.files, TABLE_BYTES):
            yield rows_of([self._record(file) for file in part])

    def _record(self, file: FoundFile) -> SourceRow:
        parts: dict[str, str] = dict(zip(self.levels, file.relative.split("/")[:-1], strict=False))
        image, fault = b"", ""
        try:
            with naming_location(file.location), file.location.open_at() as stream:
                image = stream.read()
        except DataError as error:
            fault = f"no image file {file.relative!r}: {error.what}"
        task, split = (parts.get(level) if level in self.levels else "" for level in ("task", "split"))
        return SourceRow(file.relative, "", parts.get("label"), task=task, split=split, image=image, fault=fault)


def _levels(files: Sequence[FoundFile]) -> tuple[Level, ...]:
    outermost = {file.relative.split("/")[0] for file in files if "/" in file.relative}
    return ("split", "label") if outermost and all(map(split_name, outermost)) else ("label",)


def _parts(files: Sequence[FoundFile], max_bytes: int) -> Iterator[list[FoundFile]]:
    """The files in order, up to about `max_bytes` together."""
    ends, total = [], 0
    for file in files:
        ends.append(total // max_bytes)
        total += max(file.size, 1024)
    for _, pairs in groupby(zip(files, ends, strict=True), key=lambda pair: pair[1]):
        yield [file for file, _ in pairs]
