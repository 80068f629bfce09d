"""Join recorded answers with the rows of a sequence by id, in a database on disk, with bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from kcm.errors import DataError
from kcm.inputs.vectors import matrix
from kcm.large.adapters.recorded import PROBABILITIES, repeated
from kcm.large.base import RecordedAnswers
from kcm.parquet import read_table
from pipelines.batch.shards import write_shard
from pipelines.batch.units import Counts
from pipelines.store.outcomes import Answers, over_labels
from pipelines.store.sequence import Names
from pipelines.store.storage import Storage

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "1GB"}  # DuckDB spills beyond it
_USAGE = ("rows", "tokens", "currency")


def look_up_shards(
    model: RecordedAnswers, where: str, names: Names, sources: Mapping[str, Path], folder: Path, storage: Storage
) -> Counts:
    """Write a file with the recorded answers to the rows of every shard to `folder`; returns the usage.

    Raises DataError for a row without an answer, two answers for one row, an invalid table, and probabilities (one per
    row and label) that do not fit into memory.
    """
    rows = (read_table(storage.readable(source), columns=["id", "split"]) for source in sources.values())
    num_labels = len(names.labels)
    with _in_memory(num_labels, where), _joined(model, where, rows) as database:
        _require_all(database, where)
        for shard, name in enumerate(sources):
            query = "SELECT * FROM joined WHERE shard = ? ORDER BY place"
            answers = _answers(database.sql(query, params=[shard]).to_arrow_table(), num_labels)
            write_shard(storage, [answers], folder / name)
        usage = database.sql("SELECT count(*), sum(tokens)::BIGINT, sum(currency) FROM joined").fetchall()[0]
    return {name: value or 0 for name, value in zip(_USAGE, usage, strict=True)}


@contextmanager
def _in_memory(num_labels: int, where: str) -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise DataError(
            f"the answers to these rows do not fit into memory with {num_labels:,} labels",
            where=where,
            hint="Take fewer rows (tasks.max_rows_per_task) or fewer labels",
        ) from error


@contextmanager
def _joined(model: RecordedAnswers, where: str, rows: Iterable[pa.Table]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the table `joined`: every row with its answer, or with nulls.

    `shard` counts the tables of `rows`, `place` the rows of one. Raises DataError for two answers to one item.
    """
    with (
        tempfile.TemporaryDirectory(prefix="kcm-") as folder,
        duckdb.connect(Path(folder, "answers.duckdb"), config=_SETTINGS) as database,
    ):
        _insert(database, "answers", model.tables())
        numbered = (
            table.append_column("shard", pa.array([shard] * len(table), pa.int64())).append_column(
                "place", pa.array(range(len(table)), pa.int64())
            )
            for shard, table in enumerate(rows)
        )
        _insert(database, "rows", numbered)
        (twice,) = database.sql(
            "SELECT min(id) FROM (SELECT id FROM answers GROUP BY id HAVING count(*) > 1)"
        ).fetchall()
        if twice[0] is not None:
            raise repeated(twice[0], where)
        database.execute("CREATE TABLE joined AS FROM rows LEFT JOIN answers USING (id) ORDER BY shard, place")
        yield database


def _insert(database: duckdb.DuckDBPyConnection, name: str, tables: Iterable[pa.Table]) -> None:
    """Make a table from one or more Arrow tables with the same columns."""
    for number, table in enumerate(tables):
        database.register("given", table)
        database.execute(f"INSERT INTO {name} FROM given" if number else f"CREATE TABLE {name} AS FROM given")
        database.unregister("given")


def _require_all(database: duckdb.DuckDBPyConnection, where: str) -> None:
    num_rows, num_lacking = database.sql("SELECT count(*), count(*) - count(label) FROM joined").fetchall()[0]
    if num_lacking:
        query = "SELECT id FROM joined WHERE label IS NULL ORDER BY shard, place LIMIT 1"
        (first,) = database.sql(query).fetchall()[0]
        raise DataError(
            f"{num_lacking:,} of {num_rows:,} rows have no recorded answer, the first is {first!r}",
            where=where,
            hint="Add their answers to the table, or take the rows out",
        )


def _answers(rows: pa.Table, num_labels: int) -> pa.Table:
    label_N = rows["label"].to_numpy()
    answers = Answers(
        label_N=label_N,
        probabilities_NC=over_labels(matrix(rows[PROBABILITIES]), label_N, num_labels),
        cost_N=rows["seconds"].to_numpy(),
        failed_N=label_N < 0,
    )
    return answers.table(rows)
