"""Sources of rows, read shard by shard, and their common configuration."""

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
    """A part of a source that is read separately. It can be pickled, and read on any node, any number of times."""

    where: str
    """The shard's name in messages."""

    num_bytes: int = 0
    """Roughly the bytes to read. Sources with many are read by the workers of a cluster."""

    @abstractmethod
    def read(self) -> Iterator[pa.Table]:
        """The rows in order, in the schema of `kcm.tasks.rows`, in tables of a few megabytes at most.

        Raises DataError for a shard that cannot be read, or whose columns differ from the other shards'.
        """

    def stamp(self) -> str | None:
        """A text that changes whenever the rows change; None if only reading them shows this."""
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
    """Shards, the label list (empty if the source has none), and the label that means none of the list."""

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
    opens_quickly: ClassVar[bool] = False  # `build` reads at most a few rows
    needs_cluster: ClassVar[bool] = False  # `build` needs a connection to Ray

    kind: str = Field("", description="Chooses the kind of source.")

    @property
    def paths(self) -> tuple[str, ...]:
        """The tables that it reads; none for another kind of source."""
        return ()

    def next_table(self, table: str) -> SourceConfig:
        """The same source with another table. ConfigError for a source without tables."""
        raise ConfigError(
            f"a source of the kind {self.kind!r} reads no table that a run could append",
            where="tasks.source.kind",
            hint="Use the kind files",
        )

    @abstractmethod
    def build(self, assets_dir: Path, vectors: Sequence[str] = ()) -> Source:
        """Open the source. `vectors` are columns of numbers, or one column of lists, that make the vector of a row.

        Raises DataError or AssetError if the source or a named column is missing.
        """


def refuse_vectors(vectors: Sequence[str], kind: str) -> None:
    """Raise ConfigError if vectors are requested from a kind of source that has none."""
    if vectors:
        raise ConfigError(
            f"the rows of a source of the kind {kind!r} have no column {vectors[0]!r}",
            where="encoder",
            hint="Read them with source.kind = files, or choose an encoder of texts or pictures",
        )
