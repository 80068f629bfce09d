"""Any reader of Ray Data is a source: the same rows as from files, and what cannot be read is said in one line."""

import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.data import DataContext

from kcm.config import Config, parse_config
from kcm.errors import ConfigError, DataError
from kcm.tasks.readers.files import FilesSource
from kcm.tasks.sources import Source, SourceConfig
from pipelines.batch.mapping import map_items


class Run(Config):
    source: SourceConfig


def source(read: str, *, vectors: tuple[str, ...] = (), columns: dict[str, Any] | None = None, **args: Any) -> Source:
    section = {"kind": "ray", "read": read, "args": args} | (columns or {})
    return parse_config(Run, {"source": section}).source.build(Path(), vectors)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, start in (("a", 0), ("b", 300)):
        numbers = range(start, start + 300)
        table = {
            "id": [f"{n:03}" for n in numbers],
            "text": [f"text {n}" for n in numbers],
            "label": [n % 3 for n in numbers],
            "embedding": [[float(n), 1.0] for n in numbers],
        }
        pq.write_table(pa.table(table), tmp_path / f"{name}.parquet", row_group_size=100)
    return tmp_path


def read_all(shard: Any) -> pa.Table:
    return pa.concat_tables(shard.read())


@pytest.mark.integration
@pytest.mark.usefixtures("ray_cluster")
class TestOnACluster:
    def test_rows_of_parquet_are_those_of_the_files_on_any_node(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Promise: steps reach rows that lie in the object store, wherever they run."""
        monkeypatch.setattr(DataContext.get_current(), "target_min_block_size", 1)
        monkeypatch.setattr(DataContext.get_current(), "target_max_block_size", 2000)
        columns = {"id_column": "id"}
        found = source("parquet", columns=columns, vectors=("embedding",), paths=str(folder))
        assert len(found.shards) > 2
        there = pa.concat_tables(map_items(read_all, found.shards, few=1))
        here = pa.concat_tables(FilesSource(path=str(folder), id_column="id").build(folder, ("embedding",)).tables())
        assert there.combine_chunks().equals(here.combine_chunks())

    def test_rows_of_a_database_come_by_a_url(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with sqlite3.connect(tmp_path / "rows.db") as database:
            database.execute("create table reviews (id integer, text text, stars integer)")
            database.executemany("insert into reviews values (?, ?, ?)", [(n, f"t{n}", n % 2) for n in range(5)])
        monkeypatch.setenv("ROWS_DB", f"sqlite:///{tmp_path}/rows.db")
        args = {"sql": "select * from reviews order by id", "connection_factory": {"env": "ROWS_DB"}}
        rows = list(source("sql", columns={"label_column": "stars"}, **args).records)
        assert [(row.id, row.text, row.label) for row in rows] == [
            (f"sql-{n + 1}", f"t{n}", str(n % 2)) for n in range(5)
        ]
        with pytest.raises(DataError, match=r"cannot read the rows: .*no such table.*ray\.data\.read_sql") as caught:
            source("sql", **args | {"sql": "select * from gone"})
        assert "\n" not in str(caught.value)

    def test_what_a_reader_lacks_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"cannot read the rows: .*missing .*'paths'"):
            source("parquet", path=str(tmp_path))
        with pytest.raises(ConfigError, match=r"variable 'NOT_SET_HERE' is not set"):
            source("parquet", paths={"env": "NOT_SET_HERE"})
        with pytest.raises(ConfigError, match=r"needs a package that is not installed: .*ray\.data\.read_lance"):
            source("lance", uri=str(tmp_path))
        with pytest.raises(DataError, match=r"cannot read the rows: .*gone"):
            source("parquet", paths=str(tmp_path / "gone"))

    def test_a_column_that_the_rows_lack_is_named_with_the_nearest(self, folder: Path) -> None:
        with pytest.raises(DataError, match=r"no column 'txt' .*ray\.data\.read_parquet.*mean 'text'"):
            source("parquet", columns={"text_column": "txt"}, paths=str(folder))


def test_unknown_reader_names_the_nearest_at_configuration() -> None:
    """Promise: an unknown reader names the nearest when the configuration is read."""
    with pytest.raises(ConfigError, match=r"no reader 'icebreg', did you mean 'iceberg'\?.*delta_sharing_tables"):
        parse_config(Run, {"source": {"kind": "ray", "read": "icebreg"}})


@pytest.mark.parametrize(
    "args", [{"uri": "mongodb://me:pass@host"}, {"options": [{"api_key": "abcdefgh"}]}, {"password": ["abcdefgh"]}]
)
def test_a_secret_among_the_arguments_is_refused_and_not_shown(args: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"holds a secret: write \{env: NAME\}") as caught:
        parse_config(Run, {"source": {"kind": "ray", "read": "mongo", "args": args}})
    assert "pass@" not in str(caught.value)
    assert "abcdefgh" not in str(caught.value)
