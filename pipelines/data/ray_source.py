"""Labelled rows from whatever Ray Data reads: Iceberg, Delta Sharing, SQL, Lance, and all else with a `read_*`."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import ray
import sqlalchemy
from pydantic import Field, field_validator
from ray.data import DataContext, Dataset
from sqlalchemy.pool import NullPool

from kcm.errors import ConfigError, DataError, KcmError
from kcm.inputs.chunks import Chunk, Wanted
from kcm.redact import redacted_values
from kcm.tasks.readers.columns import ChunkShard, ColumnsConfig, Normaliser, TableLayout, TablePlace
from kcm.tasks.sources import Source, SourceConfig
from pipelines.batch.on_cluster import silence_ray_data

_READ = "read_"
_FIRST_ROWS, _ROWS_AT_ONCE = 1000, 16_384


class RaySource(SourceConfig, ColumnsConfig):
    """The rows of any reader of Ray Data. They are read once, into the object store, which spills to disk.

    Rows without an id of their own are numbered in the order in which the reader gives them: name an `id_column` where
    that can change, as it can of most databases.
    """

    needs_cluster: ClassVar[bool] = True

    read: str = Field(description="What is read, X of ray.data.read_X: iceberg, delta_sharing_tables, sql, lance, …")
    args: dict[str, Any] = Field(
        default={},
        description="Arguments of the reader by name; {env: NAME} is the content of an environment variable. "
        "The connection_factory of sql may be a URL of SQLAlchemy.",
    )

    @field_validator("read")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in (known := readers()):
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise ValueError(f"ray.data has no reader {name!r}, did you mean {nearest!r}? Known are {', '.join(known)}")
        return name

    @field_validator("args")
    @classmethod
    def _without_secrets(cls, args: dict[str, Any]) -> dict[str, Any]:
        if redacted_values(args) != args:
            raise ValueError("it holds a secret: write {env: NAME}, and put it into that variable")
        return args

    def build(self, assets_dir: Path, vectors: Sequence[str] = ()) -> Source:
        if not ray.is_initialized():
            raise ConfigError("a source of the kind 'ray' is read on a cluster, and none is connected", where="source")
        place = TablePlace(where=f"ray.data.{_READ}{self.read}", stem=self.read)
        with _reading(place.where):
            dataset = self._dataset()
            first: pa.Table = dataset.take_batch(_FIRST_ROWS, batch_format="pyarrow") if dataset.schema() else None
            if first is None or not len(first):
                raise DataError("there are no rows", where=place.where)
            layout = TableLayout.found_in(_chunk(first, 1), place, self, vectors)
            read = dataset.select_columns([name for name in first.schema.names if layout.wants(name)])
            blocks = read.to_arrow_refs()
            sizes = ray.get([_num_rows.remote(block) for block in blocks])
        normaliser = Normaliser(layout, place)
        starts = accumulate(sizes, initial=1)
        reads = (partial(_read_block, *each) for each in zip(blocks, starts, strict=False))
        shards = (ChunkShard(place.where, read, normaliser) for read in reads)
        return Source(self.read, tuple(shards), self.labels, self.out_of_scope_label)

    def _dataset(self) -> Dataset:
        silence_ray_data()
        reader: Callable[..., Dataset] = getattr(ray.data, f"{_READ}{self.read}")
        args = {name: _from_environment(value) for name, value in self.args.items()}
        if isinstance(url := args.get("connection_factory"), str):
            args["connection_factory"] = partial(_connection, url)
        context = DataContext.get_current().copy()
        context.execution_options.preserve_order = True
        with DataContext.current(context):
            return reader(**args)


def _read_block(block: ray.ObjectRef[pa.Table], first: int, wanted: Wanted) -> Iterator[Chunk]:
    """The rows of a block, which has only wanted columns; `first` is the number of the first among all, from 1."""
    table = ray.get(block)
    for start in range(0, len(table), _ROWS_AT_ONCE):
        yield _chunk(table.slice(start, _ROWS_AT_ONCE), first + start)


@ray.remote(num_cpus=0)
def _num_rows(block: pa.Table) -> int:
    return len(block)


def readers() -> list[str]:
    """What Ray Data reads, by the names of its functions without `read_`."""
    names = (name.removeprefix(_READ) for name in dir(ray.data) if name.startswith(_READ))
    return [name for name in names if callable(getattr(ray.data, f"{_READ}{name}")) and name != "api"]


def _chunk(table: pa.Table, first: int) -> Chunk:
    """Rows of a block; tensors as the lists in which Arrow stores them."""
    for number, field in enumerate(table.schema):
        if isinstance(field.type, pa.BaseExtensionType):
            storage = pa.chunked_array(
                [chunk.storage for chunk in table[field.name].chunks], type=field.type.storage_type
            )
            table = table.set_column(number, field.name, storage)
    return Chunk(table, first, tuple(table.schema.names))


def _connection(url: str) -> Any:
    """A connection of Python's database interface (PEP 249)."""
    return sqlalchemy.create_engine(url, poolclass=NullPool).raw_connection()


def _from_environment(value: Any) -> Any:
    """The value with every {env: NAME} replaced. Raises ConfigError for a variable that is not set."""
    if isinstance(value, dict):
        if value.keys() == {"env"}:
            try:
                return os.environ[value["env"]]
            except KeyError:
                raise ConfigError(f"the variable {value['env']!r} is not set", where="source.args") from None
        return {name: _from_environment(each) for name, each in value.items()}
    return [_from_environment(each) for each in value] if isinstance(value, list) else value


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """A block in which a reader works; what it raises, which may be anything, becomes an error of one line."""
    try:
        yield
    except KcmError:
        raise
    except ImportError as error:
        raise ConfigError(
            f"it needs a package that is not installed: {error}", where=where, hint="Install it on every node"
        ) from None
    except Exception as error:
        raise DataError(f"cannot read the rows: {_reason(error)}", where=where) from error


def _reason(error: BaseException) -> str:
    """The first line of what a task of Ray raised, or of the error itself."""
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0][:300]
