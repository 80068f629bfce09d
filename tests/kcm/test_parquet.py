"""A damaged page is an error that names the file; what has no checksums is read as it is."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from kcm.errors import ArtefactError
from kcm.inputs.vectors import list_column
from kcm.parquet import open_file, open_writer, read_table, sound, write_table

GROUP = 100
ROWS = pa.table(
    {
        "split": ["train"] * GROUP + ["test"] * GROUP,
        "features": list_column(np.random.default_rng(0).normal(size=(2 * GROUP, 8)).astype(np.float32)),
    }
)
TEST = pc.field("split") == "test"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_table(ROWS, path := tmp_path / "rows.parquet", row_group_size=GROUP, use_dictionary=["split"])
    return path


def flip(path: Path, group: int) -> None:
    """Change one bit in the middle of the vectors of a row group."""
    column = pq.read_metadata(path).row_group(group).column(1)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(content)


def test_what_was_written_is_read(file: Path) -> None:
    assert read_table(file).equals(ROWS)
    assert read_table(file, columns=["features"], where=TEST).equals(ROWS.slice(GROUP).select(["features"]))


def test_flipped_bit_names_the_file_and_spares_other_rows(file: Path) -> None:
    flip(file, 0)
    assert len(pq.read_table(file)) == len(ROWS)  # without a check nobody notices
    with pytest.raises(ArtefactError, match="CRC checksum verification failed") as error:
        read_table(file)
    assert error.value.where == str(file)
    assert "remove the folder of its artefact" in error.value.hint
    assert read_table(file, where=TEST).equals(ROWS.slice(GROUP))


def test_a_flipped_bit_is_found_by_row_group_and_in_a_stream(file: Path) -> None:
    flip(file, 1)
    with open_file(file) as opened, file.open("rb") as stream:
        assert opened.read_row_group(0).equals(ROWS.slice(0, GROUP))
        with pytest.raises(ArtefactError, match="CRC") as error, sound(file):
            opened.read_row_group(1)
        with pytest.raises(ArtefactError, match="CRC") as streamed:
            read_table(stream, where=TEST)
    assert error.value.where == streamed.value.where == str(file)


def test_a_writer_leaves_checksums(tmp_path: Path) -> None:
    with open_writer(path := tmp_path / "rows.parquet", ROWS.schema, use_dictionary=["split"]) as writer:
        writer.write_table(ROWS)
    flip(path, 0)
    with pytest.raises(ArtefactError, match="CRC"):
        read_table(path)


def test_a_cut_file_is_named(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ArtefactError, match="cannot be read") as error:
        open_file(file)
    assert error.value.where == str(file)
