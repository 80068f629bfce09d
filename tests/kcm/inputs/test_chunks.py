"""Files are read in bounded pieces; whatever cannot be read is named, and no row is lost or moved by it."""

import csv
import gzip
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcm.errors import DataError
from kcm.inputs import chunks, textfile
from kcm.inputs.cell_text import unguarded
from kcm.inputs.chunks import Chunk, read_chunks
from kcm.inputs.location import Location
from kcm.inputs.textfile import UNDECODABLE


def read(path: Path, content: bytes, wanted=lambda name: True) -> list[Chunk]:
    path.write_bytes(content)
    return list(read_chunks(Location.of(path), wanted))


def rows(found: list[Chunk]) -> list[dict[str, object]]:
    return [row for chunk in found for row in chunk.table.to_pylist()]


def faults(found: list[Chunk]) -> dict[int, str]:
    return {c.first + at: text for c in found for at, text in c.faults.items()}


NOT_IN_CELLS = "\r\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029" + UNDECODABLE
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=NOT_IN_CELLS))


@given(
    st.lists(st.lists(CELLS.map(lambda cell: cell.strip() or "x"), min_size=1, max_size=4), max_size=40), st.booleans()
)
def test_ragged_rows_keep_their_places_and_cells(tmp_path_factory, table, small_blocks) -> None:
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerows([["a", "b", "c"], *table])
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with pytest.MonkeyPatch.context() as patch:
        if small_blocks:
            patch.setattr(textfile, "BLOCK_BYTES", 1024)
        found = read(path, written.getvalue().encode())
    cells = [dict(zip("abc", map(unguarded, [*row, "", ""][:3]), strict=True)) for row in table]
    assert rows(found) == cells
    assert faults(found) == {
        number: f"{len(row)} fields instead of 3" for number, row in enumerate(table, start=1) if len(row) > 3
    }


def test_cells_of_csv_stay_text_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    found = read(tmp_path / "rows.csv", b"\xef\xbb\xbfid,label\r\n007,NA\r\n\r\n   \r\n008,\r\n")
    assert rows(found) == [{"id": "007", "label": "NA"}, {"id": "008", "label": ""}]


@pytest.mark.parametrize(
    "end",
    [b'"cut', b'"', b'"cut ""', b'"cut\nhere', b'"cut\n"", ""'],
)
@pytest.mark.parametrize("before", [b"a,b\n1,2\n3,", b"a,b\n1,2\n"])
def test_a_file_that_ends_within_a_quoted_cell_is_refused_as_cut(tmp_path: Path, before: bytes, end: bytes) -> None:
    with pytest.raises(DataError, match=r"the file seems to be cut \(.*rows\.csv\)"):
        read(tmp_path / "rows.csv", before + end)


@pytest.mark.parametrize("end", [b'"whole"', b'""', b'"a ""b"""', b"", b'5" x', b'"x\n"', b'"x"\n\n'])
@pytest.mark.parametrize("before", [b"a,b\n1,2\n3,", b"a,b\n1,2\n"])
def test_a_file_that_ends_well_is_not(tmp_path: Path, before: bytes, end: bytes) -> None:
    assert read(tmp_path / "rows.csv", before + end)


def test_long_text_is_one_cell_and_endless_is_an_open_quote(tmp_path: Path) -> None:
    assert rows(read(tmp_path / "rows.csv", b"a,b\n" + b"x" * 3_000_000 + b",y\n"))[0]["b"] == "y"
    with pytest.raises(DataError, match=r"a row is longer than 4 MiB\. Is a quote left open"):
        read(tmp_path / "rows.csv", b'a,b\n"open,x\n' + b"a,b\n" * 12_000_000)


def test_a_large_file_comes_in_pieces_numbered_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfile, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(chunks, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 4096)
    number = list(range(5000))
    table = pa.table({"n": number})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=1700)
    lines = "".join(json.dumps({"n": each}) + "\n\n" for each in number)
    for name, content in (
        ("rows.csv", "n\n" + "".join(f"{each}\n" for each in number)),
        ("rows.jsonl", lines),
        ("rows.parquet", None),
    ):
        path = tmp_path / name
        found = read(path, path.read_bytes() if content is None else content.encode())
        assert len(found) > 2
        assert [int(str(row["n"])) for row in rows(found)] == number
        assert [chunk.first for chunk in found[1:]] == [chunk.first + chunk.num_rows for chunk in found[:-1]]


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.jsonl.gz"])
def test_a_compressed_file_is_read_and_a_cut_one_is_refused(tmp_path: Path, name: str) -> None:
    content = b"n\n1\n2\n" if "csv" in name else b'{"n": 1}\n{"n": 2}\n'
    assert len(rows(read(tmp_path / name, gzip.compress(content)))) == 2
    with pytest.raises(DataError, match=rf"cannot read.*{name}"):
        read(tmp_path / name, gzip.compress(content * 1000)[:-30])


def test_json_values_keep_types_or_become_text(tmp_path: Path) -> None:
    lines = [
        {"n": 1, "rate": 1, "mixed": 1, "list": [1, 2], "object": {"k": 1}, "big": 2**70},
        {"n": 2, "rate": 0.5, "mixed": "a", "list": None, "object": {"j": 2}, "late": True},
    ]
    (chunk,) = read(tmp_path / "rows.jsonl", "\n".join(map(json.dumps, lines)).encode())
    assert chunk.table.to_pylist() == [
        {
            "n": 1,
            "rate": 1.0,
            "mixed": "1",
            "list": [1, 2],
            "object": '{"k": 1}',
            "big": str(2**70),
            "late": None,
        },
        {
            "n": 2,
            "rate": 0.5,
            "mixed": "a",
            "list": None,
            "object": '{"j": 2}',
            "big": None,
            "late": True,
        },
    ]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"a": ', "not a JSON object: Expecting value"),
        ("[1]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("[" * 100_000, "not a JSON object: maximum recursion depth"),
    ],
)
def test_line_without_an_object_is_the_only_fault(tmp_path: Path, line: str, fault: str) -> None:
    found = read(tmp_path / "rows.jsonl", f'{{"a": "x"}}\n\n{line}\n{{"a": "y"}}\n'.encode())
    assert [row["a"] for row in rows(found)] == ["x", None, "y"]
    ((row, reason),) = faults(found).items()
    assert (row, reason.startswith(f"line 3: {fault}")) == (2, True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"a,a\n1,2\n", "the column 'a' occurs twice"),
        ("rows.parquet", b"PAR1", "cannot read the file"),
        ("rows.txt", b"", r"unknown kind of file '\.txt'.*\.csv, \.tsv, \.jsonl, .*\.parquet"),
    ],
)
def test_a_file_that_is_not_sound_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / name, content)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_that_is_cut_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": list(range(100_000))}), tmp_path / "rows.parquet")
    whole = (tmp_path / "rows.parquet").read_bytes()
    with pytest.raises(DataError, match=r"cannot read the file: .*rows\.parquet"):
        read(tmp_path / "rows.parquet", whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot read .*rows\.parquet"):
        read(tmp_path / "rows.parquet", whole[:1000] + b"\0" * 1000 + whole[2000:])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", b"a,b\nGr\xc3\xb6\xc3\x9fe,1\nbad \xff,2\nshort \xff\nfine,3\n"),
        ("late.csv", b"a,b\n" + b"x,1\n" * 1_200_000 + b"bad \xff,2\n"),
        ("rows.jsonl", b'{"a": "\xc3\xb6\xc3\x9f"}\n{"a": "\xff"}\n{"a": "c"}\n'),
        ("rows.json", b'[{"a": "\xc3\xb6\xc3\x9f"},\n{"a": ["\xff"]},\n{"a": "c"}]'),
    ],
)
def test_undecodable_bytes_are_a_fault_of_their_row_only(tmp_path: Path, name: str, content: bytes) -> None:
    found = read(tmp_path / name, content)
    number = content.count(b"\n", 0, content.index(b"\xff")) + (".json" in name)
    bad = faults(found)
    assert "bytes that are not of the file's encoding" in bad.pop(number)
    assert len(bad) == (name == "rows.csv")
    assert not any(UNDECODABLE in str(cell) for row in rows(found[-1:]) for cell in row.values())


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.csv.gz"])
def test_endless_line_is_refused_after_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Promise: a compressed line takes no more memory than the bound, however long it is."""
    monkeypatch.setattr(textfile, "MAX_LINE", 1000)
    read_sizes: list[int] = []
    readline = io.TextIOWrapper.readline

    class Watched(io.TextIOWrapper):
        def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
            read_sizes.append(len(line := readline(self, size)))
            return line

    monkeypatch.setattr(io, "TextIOWrapper", Watched)
    with pytest.raises(DataError, match="line 2 is longer than"):
        read(tmp_path / name, gzip.compress(b'{"text": "a"}\n' + b"x" * 100_000_000))
    assert max(read_sizes) == 1001


@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz"])
def test_whole_file_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(chunks, "MAX_WHOLE", 1000)
    pack = gzip.compress if name.endswith("gz") else bytes
    with pytest.raises(DataError, match="Save it as JSON lines"):
        read(tmp_path / name, pack(json.dumps([{"text": "x" * 2000}]).encode()))
    assert len(rows(read(tmp_path / name, pack(b'{"text": "a"}\n' * 200)))) == 200


def test_workbook_is_bounded_by_what_it_unpacks_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "MAX_WHOLE", 10_000)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * 1_000_000)
    with pytest.raises(DataError, match="Save the sheet"):
        read(tmp_path / "rows.xlsx", content.getvalue())


def test_column_named_by_half_a_letter_is_read(tmp_path: Path) -> None:
    (chunk,) = read(tmp_path / "rows.jsonl", b'{"text": "a", "\\ud800": "b"}\n')
    assert chunk.names == ("text", "\\ud800")
    assert chunk.table.to_pylist() == [{"text": "a", "\\ud800": "b"}]
