"""Image-text matching: pictures with captions become matching and non-matching pairs.

Pictures are taken in twos, in the order of a seeded hash: each is paired with its own caption and with the other's. So
both classes have the same size, every caption is right as often as wrong, and the pairs of two pictures stay in one
split: no picture and no caption is in two splits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from pydantic import Field

from kcm.config import LocalPath
from kcm.errors import DataError
from kcm.tasks.readers.files import FilesSource
from kcm.tasks.rows import SourceRow, rows_of
from kcm.tasks.sources import Shard, Source, SourceConfig, refuse_vectors
from kcm.tasks.splits import draw

_PAIRS_AT_ONCE = 256
MAX_CAPTION = 2000  # in characters; a row with a longer text is bad
LABELS = MATCH, NO_MATCH = ("match", "no match")


class PairsSource(SourceConfig):
    """Tables of pictures with captions, one per task, from which pairs are made."""

    tables: Annotated[dict[str, str], LocalPath] = Field(
        min_length=1, description="Task -> file or folder with its pictures and captions."
    )
    image_column: str = Field(default="image", description="Column with the picture: its bytes, or a path.")
    image_root: Annotated[str | None, LocalPath] = Field(
        default=None, description="Folder below which the paths of pictures must lead; null: the table's own."
    )
    text_column: str = Field(default="text", description="Column with the caption.")
    id_column: str | None = Field(
        default=None, description="Column with a unique, stable id; null: file or split, and row number."
    )
    group_column: str | None = Field(
        default=None, description="Column that names pictures of the same thing; null: pictures with equal captions."
    )

    leave_out: Annotated[str | None, LocalPath] = Field(
        default=None,
        description="File of the groups that heads were fitted on, by `align`; null: none are left out.",
    )

    def build(self, assets_dir: Path, vectors: Sequence[str] = ()) -> Source:
        refuse_vectors(vectors, "pairs")
        left_out = self._left_out()
        shards = []
        for task, path in self.tables.items():
            source = self._source_of(path).build(assets_dir)
            num_bytes = 2 * sum(shard.num_bytes for shard in source.shards)
            shards.append(PairsShard(path, task, source, left_out, num_bytes))
        return Source("pairs", tuple(shards), LABELS)

    def _left_out(self) -> frozenset[str]:
        if self.leave_out is None:
            return frozenset()
        try:
            return frozenset(json.loads(Path(self.leave_out).expanduser().read_text(encoding="utf-8")))
        except (OSError, ValueError):
            hint = "Run `python -m kcm_extension.matching.align CONFIG` first"
            raise DataError("no file of groups to leave out", where=self.leave_out, hint=hint) from None

    def _source_of(self, path: str) -> FilesSource:
        """The pictures and captions of a table; the caption is the label, and no other label is needed."""
        columns = {"image_column", "image_root", "text_column", "id_column", "group_column"}
        return FilesSource(path=path, label_column=self.text_column, **self.model_dump(include=columns))


@dataclass(frozen=True)
class PairsShard(Shard):
    """The pairs of one table, whose pictures are in memory while they are read."""

    where: str
    task: str
    source: Source
    left_out: frozenset[str] = frozenset()
    num_bytes: int = 0  # of its files, whose pictures come twice

    def read(self) -> Iterator[pa.Table]:
        """The pairs. Raises DataError for a table with a single caption."""
        every = _pairs(list(self.source.records), self.task)
        pairs = (pair for pair in every if pair.group not in self.left_out)
        while part := list(islice(pairs, _PAIRS_AT_ONCE)):
            yield rows_of(part)


def _pairs(records: Sequence[SourceRow], task: str) -> Iterator[SourceRow]:
    units: dict[str, dict[str, list[SourceRow]]] = {}
    for number, record in enumerate(records, start=1):
        caption = (record.text or "").strip()
        too_long = len(caption) > MAX_CAPTION
        if record.fault or too_long or not (record.id and record.image and caption):
            fault = f"the caption has {len(caption):,} characters, more than {MAX_CAPTION:,}" if too_long else ""
            yield _pair(record, record, f"{task} {number}", task, fault=record.fault or fault)
            continue
        units.setdefault(record.split or "", {}).setdefault(record.group or caption.casefold(), []).append(record)
    for split, members in units.items():
        if len(members) < 2:
            place = f" in {split}" if split else ""
            raise DataError(f"table {task!r} needs two captions, but has one{place}", where="source.tables")
        yield from _split_pairs(members, task)


def _split_pairs(units: dict[str, list[SourceRow]], task: str) -> Iterator[SourceRow]:
    shuffled_units = sorted(units, key=lambda unit: (draw(0, "pairs", f"{task}\0{unit}"), unit))
    blocks = [shuffled_units[start : start + 2] for start in range(0, len(shuffled_units) - len(shuffled_units) % 2, 2)]
    blocks[-1] += shuffled_units[2 * len(blocks) :]  # an odd one makes the last block three
    for block in blocks:
        for position, unit in enumerate(block):
            partner_records = units[block[(position + 1) % len(block)]]
            for number, record in enumerate(units[unit]):
                yield _pair(record, record, f"{task}\0{min(block)}", task)
                yield _pair(record, partner_records[number % len(partner_records)], f"{task}\0{min(block)}", task)


def _pair(record: SourceRow, other: SourceRow, group: str, task: str, fault: str = "") -> SourceRow:
    """The picture of one row with the caption of the other; named after both if they differ."""
    name = record.id if other is record else f"{record.id} / {other.id}"
    label = MATCH if other is record else NO_MATCH
    return replace(record, id=name, text=other.text, label=label, group=group, task=task, fault=fault)
