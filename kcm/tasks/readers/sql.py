"""Labelled rows from a table of a database, by SQLAlchemy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import sqlalchemy
from pydantic import Field, field_validator
from sqlalchemy.pool import NullPool

from kcm.errors import ConfigError, DataError
from kcm.inputs.chunks import Chunk, Wanted, table_of
from kcm.redact import PlainUrl
from kcm.tasks.readers.columns import ChunkShard, ColumnsConfig, Normaliser, TableLayout, TablePlace
from kcm.tasks.sources import Source, TableSourceConfig

_ROWS_PER_CHUNK = 10_000


class SqlSource(TableSourceConfig, ColumnsConfig):
    """A table of a database, read in the order of its primary key.

    Rows without an id of their own are numbered in that order; name an `id_column` where rows can be deleted.
    """

    url: PlainUrl = Field(description="URL of SQLAlchemy without a password, such as sqlite:///rows.db.")
    table: str = Field(description="Name of the table or view, or schema.table.")

    @field_validator("url")
    @classmethod
    def _of_a_database(cls, url: str) -> str:
        try:
            sqlalchemy.make_url(url)
        except sqlalchemy.exc.ArgumentError:
            raise ValueError("it is no URL of a database, such as sqlite:///rows.db") from None
        return url

    def build(self, assets_dir: Path, vectors: Sequence[str] = ()) -> Source:
        url, place = _absolute(self.url), TablePlace(f"table {self.table!r}", self.table)
        first = next(self.chunks(assets_dir))
        if not first.num_rows:
            raise DataError("the table holds no rows", where=place.where)
        layout = TableLayout.found_in(first, place, self, vectors)
        shard = ChunkShard(place.where, partial(_read, url, self.table), Normaliser(layout, place))
        return Source(self.table, (shard,), self.labels, self.out_of_scope_label)

    def chunks(self, assets_dir: Path) -> Iterator[Chunk]:
        """The rows as they are, a bounded number at a time; one empty chunk of an empty table."""
        return _read(_absolute(self.url), self.table)


def _read(url: str, name: str, wanted: Wanted = lambda column: True) -> Iterator[Chunk]:
    schema, _, plain = name.rpartition(".")
    with _readable(url, name):
        engine = sqlalchemy.create_engine(url, poolclass=NullPool)
        with engine.connect() as connection:
            found = sqlalchemy.Table(plain, sqlalchemy.MetaData(), schema=schema or None, autoload_with=connection)
            names = tuple(column.name for column in found.columns)
            columns = [column for column in found.columns if wanted(column.name)]
            query = sqlalchemy.select(*columns).order_by(*found.primary_key.columns)
            result = connection.execution_options(stream_results=True).execute(query)
            first = 1
            for rows in result.mappings().partitions(_ROWS_PER_CHUNK):
                yield Chunk(table_of([dict(row) for row in rows], [column.name for column in columns]), first, names)
                first += len(rows)
            if first == 1:
                yield Chunk(table_of([], [column.name for column in columns]), first, names)


@contextmanager
def _readable(url: str, name: str) -> Iterator[None]:
    """A block that reads a table; errors become one line."""
    shown = sqlalchemy.make_url(url)
    if shown.get_backend_name() == "sqlite" and not Path(shown.database or "").is_file():
        raise DataError(f"no such file {shown.database!r}", where=str(shown))  # sqlite would create it
    try:
        yield
    except sqlalchemy.exc.NoSuchTableError:
        with sqlalchemy.create_engine(url, poolclass=NullPool).connect() as connection:
            tables = ", ".join(sqlalchemy.inspect(connection).get_table_names()) or "none"
        raise DataError(f"there is no table {name!r}", where=str(shown), hint=f"The tables are {tables}") from None
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the database needs the package {error.name!r}", where=str(shown), hint=f"pip install {error.name}"
        ) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        raise DataError(f"cannot read the table: {reason}", where=str(shown)) from None


def _absolute(url: str) -> str:
    """The URL for any process: the path of a file absolute, the driver of PostgreSQL the one that we install."""
    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        parsed = parsed.set(database=os.path.abspath(os.path.expanduser(parsed.database)))
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string()
