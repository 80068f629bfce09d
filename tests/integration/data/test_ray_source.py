"""Any reader of Ray Data is a source: the same rows as from files, and what cannot be read is said in one line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import yaml

from kcm.config import Config, parse_config
from kcm.errors import ConfigError, DataError
from kcm.tasks.readers.files import FilesSource
from kcm.tasks.sources import Source, SourceConfig
from tests.integration.pipeline.test_precomputed import rows, values_of


class Run(Config):
    source: SourceConfig


def source(
    read: str, assets: Path, *, vectors: tuple[str, ...] = (), columns: dict[str, Any] | None = None, **args: Any
) -> Source:
    section = {"kind": "ray", "read": read, "args": args, "id_column": "id"} | (columns or {})
    return parse_config(Run, {"source": section}).source.build(assets, vectors)


def write(folder: Path, name: str, numbers: range) -> None:
    table = {
        "id": [f"{n:03}" for n in numbers],
        "text": [f"text {n}" for n in numbers],
        "label": [n % 3 for n in numbers],
        "embedding": [[float(n), 1.0] for n in numbers],
    }
    pq.write_table(pa.table(table), folder / f"{name}.parquet", row_group_size=100)


@pytest.mark.integration
@pytest.mark.usefixtures("ray_cluster")
class TestOnACluster:
    def test_rows_are_those_of_the_files_in_the_order_of_their_ids(self, tmp_path: Path) -> None:
        """Promise: the order in which a reader gives its blocks changes nothing."""
        for name in ("files", "blocks"):
            (tmp_path / name).mkdir()
        write(tmp_path / "files", "all", range(600))
        write(tmp_path / "blocks", "a", range(300, 600))  # the reader gives these first
        write(tmp_path / "blocks", "b", range(300))
        read = source("parquet", tmp_path, vectors=("embedding",), paths=str(tmp_path / "blocks"))
        files = FilesSource(path=str(tmp_path / "files"), id_column="id").build(tmp_path, ("embedding",))
        found, expected = (pa.concat_tables(each.tables()).combine_chunks() for each in (read, files))
        assert found.equals(expected)
        again = source("parquet", tmp_path, vectors=("embedding",), paths=str(tmp_path / "blocks"))
        assert again.shards[0].stamp() == read.shards[0].stamp()  # the same rows are the same file

    def test_tensors_are_vectors(self, tmp_path: Path) -> None:
        """Promise: Ray Data writes what an encoder gives as tensors, and they are read as lists are."""
        records = [
            {"id": str(n), "text": f"text {n}", "label": n % 2, "embedding": np.full(3, float(n))} for n in range(9)
        ]
        encoded = ray.data.from_items(records).map_batches(lambda batch: batch, batch_format="numpy")
        encoded.write_parquet(str(tmp_path / "t"))
        found = source("parquet", tmp_path, vectors=("embedding",), paths=str(tmp_path / "t"))
        assert [row.vector.tolist() for row in found.records if row.vector is not None] == [[n] * 3 for n in range(9)]

    def test_what_a_reader_lacks_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"cannot read the rows: .*missing .*'paths'"):
            source("parquet", tmp_path, path=str(tmp_path))
        with pytest.raises(ConfigError, match=r"variable 'NOT_SET_HERE' is not set"):
            source("parquet", tmp_path, paths={"env": "NOT_SET_HERE"})
        with pytest.raises(ConfigError, match=r"needs a package that is not installed: .*ray\.data\.read_lance"):
            source("lance", tmp_path, uri=str(tmp_path))
        with pytest.raises(DataError, match=r"cannot read the rows: .*gone") as caught:
            source("parquet", tmp_path, paths=str(tmp_path / "gone"))
        assert "\n" not in str(caught.value)

    def test_a_column_that_the_rows_lack_is_named_with_the_nearest(self, tmp_path: Path) -> None:
        (tmp_path / "rows").mkdir()
        write(tmp_path / "rows", "a", range(10))
        for key, wrong, near in (("text_column", "txt", "text"), ("id_column", "idd", "id")):
            with pytest.raises(DataError, match=rf"no column '{wrong}' .*ray\.data\.read_parquet.*mean '{near}'"):
                source("parquet", tmp_path, columns={key: wrong}, paths=str(tmp_path / "rows"))


@pytest.mark.integration
def test_a_run_connects_to_ray_before_it_reads(tmp_path: Path) -> None:
    """Promise: a run connects even if nothing else in it is large enough for Ray."""
    values = values_of(rows(), tmp_path)
    source = {"kind": "ray", "read": "parquet", "args": {"paths": str(tmp_path / "rows.parquet")}, "id_column": "id"}
    values["tasks"]["source"] = source | {"text_column": None}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "jobs.cli", "run", str(tmp_path / "config.yaml"), "--until", "tasks"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "storage" / "artefacts" / "tasks").glob("*/manifest.json"))) == 1


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"read": "icebreg", "id_column": "id"}, r"no reader 'icebreg', did you mean 'iceberg'\?"),
        ({"read": "parquet"}, r"id_column"),
        ({"read": "mongo", "id_column": "id", "args": {"uri": "mongodb://me:pass@host"}}, r"write \{env: NAME\}"),
        ({"read": "mongo", "id_column": "id", "args": {"password": ["abcdefgh"]}}, r"write \{env: NAME\}"),
    ],
)
def test_a_section_that_cannot_be_read_is_refused_with_the_configuration(section: Any, reason: str) -> None:
    """Promise: an unknown reader, no id, and a secret, which is not shown."""
    with pytest.raises(ConfigError, match=reason) as caught:
        parse_config(Run, {"source": {"kind": "ray"} | section})
    assert "pass@" not in str(caught.value)
    assert "abcdefgh" not in str(caught.value)
