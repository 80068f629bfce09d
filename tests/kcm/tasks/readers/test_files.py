"""The same rows come out of every kind of file, and a file that cannot be used says why."""

import sys
from pathlib import Path

import pytest

from kcm.errors import ConfigError, DataError
from kcm.tasks.readers.files import FilesSource, tables_by_task
from kcm.tasks.rows import SourceRow
from tests.kcm.inputs.table_files import WRITERS


def records(path, **columns):
    return list(FilesSource(path=path if isinstance(path, dict) else str(path), **columns).build(Path()).records)


TABLE = [
    {"id": 7, "text": 'Größe, "ok"; two', "label": "NA", "stars": 4},
    {"id": 8, "text": "two\nlines", "label": "007", "stars": 5},
    {"id": 9, "text": "café | à la carte", "label": "NA", "stars": 4},
]


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    WRITERS[name](TABLE, tmp_path / name)
    assert records(tmp_path / name, id_column="id", group_column="stars", labels=("NA", "007")) == [
        SourceRow("7", 'Größe, "ok"; two', "NA", group="4"),
        SourceRow("8", "two\nlines", "007", group="5"),
        SourceRow("9", "café | à la carte", "NA", group="4"),
    ]


def test_a_format_that_is_given_is_not_found_out(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes("text;a,b;label\nпривет;1;x\n".encode("cp1251"))
    (found,) = records(tmp_path / "data.csv", delimiter=";", encoding="cp1251")
    assert (found.text, found.label) == ("привет", "x")
    with pytest.raises(ConfigError, match=r"unknown encoding 'cp9'"):
        records(tmp_path / "data.csv", encoding="cp9")


def test_excel_without_its_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS["rows.xlsx"](TABLE, tmp_path / "rows.xlsx")
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    with pytest.raises(ConfigError, match=r"not installed.*pip install 'kcm-cascade\[excel\]'"):
        records(tmp_path / "rows.xlsx")


def test_the_layout_of_banking77_is_recognised(write_csv, tmp_path):
    write_csv([("where is my card", "card_arrival")], ("text", "category"), "bank/train.csv")
    write_csv([("card lost", "lost_card")], ("text", "category"), "bank/test.csv")
    (tmp_path / "bank" / "categories.json").write_text('["card_arrival", "lost_card"]')
    assert records(tmp_path / "bank") == [
        SourceRow("test-1", "card lost", "lost_card", split="test"),
        SourceRow("train-1", "where is my card", "card_arrival", split="train"),
    ]


def test_a_wrong_column_names_the_nearest_and_all(write_csv):
    path = write_csv([("a", "x")], ("sentence_text", "label"))
    with pytest.raises(DataError, match=r"no column 'txt' \(text_column\).*mean 'sentence_text'.*sentence_text, label"):
        records(path, text_column="txt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.csv", b"", "no rows"),
        ("data.json", b'{"train": [', "cannot read the file"),
        ("data.json", b"[" * 100_000, "nested too deeply"),
        ("data.json", b'{\n"train": []\n}', "expected a list of objects"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        records(tmp_path / name)
    assert name in str(caught.value)


def test_long_row_is_bad_and_short_row_is_padded(tmp_path):
    (tmp_path / "data.csv").write_text('label,text,more\nx,a,\n\nx,b\nx,c,d,"e,f"\nx,"g\nh",i\ncut\n')
    assert [(record.id, record.text, record.fault) for record in records(tmp_path / "data.csv")] == [
        ("data-1", "a", ""),
        ("data-2", "b", ""),
        ("data-3", "c", "4 fields instead of 3"),
        ("data-4", "g\nh", ""),
        ("data-5", "", ""),
    ]


def test_mixed_folder_says_how_to_name_its_files(write_csv, tmp_path):
    write_csv([("a", "x")], name="folder/everything.csv")
    (tmp_path / "folder" / "more.jsonl").write_text('{"text": "a", "label": "x"}')
    with pytest.raises(DataError, match=r"several kinds, \.csv, \.jsonl.*train\.csv.*folder/\*\.csv"):
        records(tmp_path / "folder")


def test_a_list_of_files_is_not_empty_and_of_one_kind_of_place(put, write_csv, tmp_path):
    """Promise: a list that cannot be read is refused in one line."""
    mixed = (str(write_csv([("a", "x")])), put("rows.csv", b"text,label\nb,y\n"))
    for path, message in (((), "the list of files is empty"), (mixed, "files here and in a store")):
        with pytest.raises(DataError, match=message):
            FilesSource(path=path).build(tmp_path)


def test_path_of_each_task_names_its_rows(tmp_path: Path) -> None:
    """Promise: rows get the task of their file, in the order of the configuration, and ids that begin with it."""
    for name in ("b", "a", "more"):
        WRITERS["rows.csv"](TABLE[:1], tmp_path / f"{name}.csv")
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("x", "y"):
        WRITERS["rows.csv"](TABLE[:1], folder / f"{name}.csv")
    found = records(
        {"late": str(tmp_path / "b.csv"), "early": str(tmp_path / "a.csv"), "both": str(folder)}, labels=("NA",)
    )
    assert [(row.task, row.id) for row in found] == [
        ("late", "late-1"),
        ("early", "early-1"),
        ("both", "both/x-1"),
        ("both", "both/y-1"),
    ]


def test_several_tables_are_tasks_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: files of a folder are tasks, but not one file, a pattern, splits or parts of one table."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "tables/b.csv",
        "tables/a.csv.gz",
        "parts/part-0001.csv",
        "parts/part-0002.csv",
        "splits/train.csv",
        "splits/test.csv",
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"text,label\n")
    assert tables_by_task(["tables/b.csv", "splits/test.csv"]) == {"b": "tables/b.csv", "test": "splits/test.csv"}
    assert list(tables_by_task(["tables"]).items()) == [("a", "tables/a.csv.gz"), ("b", "tables/b.csv")]
    for one in ("tables/b.csv", "tables/*", "parts", "splits"):
        assert tables_by_task([one]) == {}
    with pytest.raises(DataError, match="two files have the same name among b, b"):
        tables_by_task(["tables/b.csv", "tables/b.csv"])
