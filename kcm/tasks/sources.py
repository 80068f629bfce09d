"""Sources of rows, read shard by shard, and the configuration that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
from pydantic import Field

from kcm.components import FAMILIES, Component, Family
from kcm.errors import ConfigError
from kcm.tasks.rows import SourceRow, records_of, rows_of


class Shard(ABC):
    """A part of a source that is read by itself. It can be pickled, and read on any node, any number of times."""

    where: str
    """What messages call it."""

    num_bytes: int | None = None
    """Of what is read, where that is known before."""

    @abstractmethod
    def read(self) -> Iterator[pa.Table]:
        """The rows in order, in the schema of `kcm.tasks.rows`; tables of some megabytes, at most.

        Raises DataError for a shard that cannot be read, or whose columns do not fit those of the source's others.
        """

    def stamp(self) -> str | None:
        """A text that changes whenever the rows change; None where only reading them tells."""
        return None


@dataclass(frozen=True)
class TableShard(Shard):
    """Rows in memory."""

    where: str
    table: pa.Table

    def read(self) -> Iterator[pa.Table]:
        """The table."""
        yield self.table


@dataclass(frozen=True)
class Source:
    """Shards, the label list (empty where the source has none), and the label that means none of the list."""

    name: str
    shards: tuple[Shard, ...]
    labels: tuple[str, ...] = ()
    out_of_scope_label: str | None = None

    @classmethod
    def of_records(
        cls, name: str, records: Iterable[SourceRow], labels: Sequence[str] = (), out_of_scope_label: str | None = None
    ) -> Source:
        """A source of rows in memory."""
        shards = (TableShard(name, rows_of(rows)),) if (rows := list(records)) else ()
        return cls(name, shards, tuple(labels), out_of_scope_label)

    def tables(self) -> Iterator[pa.Table]:
        """The rows of all shards, in order."""
        for shard in self.shards:
            yield from shard.read()

    @property
    def records(self) -> Iterator[SourceRow]:
        """The rows one by one."""
        for table in self.tables():
            yield from records_of(table)


class SourceConfig(Component):
    """A source of rows."""

    family: ClassVar[Family] = FAMILIES["source"]
    opens_quickly: ClassVar[bool] = False  # `build` reads a few rows at the most
    needs_cluster: ClassVar[bool] = False  # `build` is called with one connected

    kind: str = Field("", description="Chooses this form of the section.")

    @abstractmethod
    def build(self, assets_dir: Path, vectors: Sequence[str] = ()) -> Source:
        """Open the source. `vectors` are columns of numbers, or one of lists, that make the vector of a row.

        Raises DataError or AssetError where the source is missing or has not the columns named.
        """


def refuse_vectors(vectors: Sequence[str], kind: str) -> None:
    """Raise ConfigError where vectors are asked for of a kind of source whose rows have none."""
    if vectors:
        raise ConfigError(
            f"the rows of a source of the kind {kind!r} have no column {vectors[0]!r}",
            where="encoder",
            hint="Read them with source.kind = files, or choose an encoder of texts or pictures",
        )
