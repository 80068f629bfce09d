from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

import pipelines.batch.predict as stage
from kcm.bundle.answers import Answer, Failure, Input
from kcm.inputs.content import IMAGE, TEXT, Content
from kcm.inputs.rowfile import open_rows
from pipelines.batch.predict import UNFINISHED, Block, BlockReader, CascadeAnswerer, added_columns

CONFIDENCE = ("judge_confidence", "answer_probability")


class StubCascade:
    """Answers with the length of the text, fails at the text `fail`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Input] = []
        self.small_side = SimpleNamespace(
            bundle=SimpleNamespace(task_names=("films",), reads=TEXT, large=SimpleNamespace(servable=True))
        )

    def answer(self, inputs: Sequence[Input]) -> list[Answer | Failure]:
        self.asked += inputs
        return [
            Failure("no tokens left")
            if item.content.text == "fail"
            else Answer(f"length {len(item.content.text)}", {}, 0.9, 1.5, None, "small", False, 0.01)
            for item in inputs
        ]


@pytest.fixture
def cascade(monkeypatch: pytest.MonkeyPatch) -> StubCascade:
    stub = StubCascade()
    monkeypatch.setattr(stage, "load_cascade", lambda *_, **__: stub)
    return stub


def scored(path: Path, content: str, task_column: str | None = None) -> list[dict[str, object]]:
    path.write_text(content, encoding="utf-8")
    file = open_rows(path, "text", task_column)
    (chunk,) = file.chunks(100)
    return CascadeAnswerer(path, path, "cpu").answer(file, chunk).to_pylist()


def test_a_row_that_cannot_be_answered_says_why_and_the_others_are_answered(
    tmp_path: Path, cascade: StubCascade
) -> None:
    rows = scored(tmp_path / "in.csv", 'text,n\na,1\n" ",2\nfail,3\nshort\nlonger,4\nlong,5,6\n')
    assert [row["error"] for row in rows] == [
        None,
        "no text",
        "no tokens left",
        "1 fields instead of 2",
        None,
        "3 fields instead of 2",
    ]
    assert [row["label"] for row in rows] == ["length 1", None, None, None, "length 6", None]
    assert [row["id"] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert [row[UNFINISHED] for row in rows] == [False, False, True, False, False, False], (
        "asking again helps none but one"
    )
    assert [item.content.text for item in cascade.asked] == ["a", "fail", "longer"]


def test_the_cascade_is_given_id_and_task(tmp_path: Path, cascade: StubCascade) -> None:
    rows = scored(tmp_path / "in.csv", "id,text,domain\nx,a,films\ny,b,\nz,c,flims\n", "domain")
    assert cascade.asked == [Input(Content("a"), "films", "x"), Input(Content("b"), None, "y")]
    assert rows[2]["error"] == "no such task: flims"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("text", ["id", "label", *CONFIDENCE, "gate_score", "route", "cost_s", "error"]),
        ("id,text", ["label", *CONFIDENCE, "gate_score", "route", "cost_s", "error"]),
        ("text,label,route", ["id", "kcm_label", *CONFIDENCE, "gate_score", "kcm_route", "cost_s", "error"]),
        ("id,text,label,kcm_label", ["kcm_kcm_label", *CONFIDENCE, "gate_score", "route", "cost_s", "error"]),
    ],
)
def test_no_column_of_the_input_is_overwritten(tmp_path: Path, header: str, expected: list[str]) -> None:
    (tmp_path / "in.csv").write_text(f"{header}\n", encoding="utf-8")
    assert list(added_columns(open_rows(tmp_path / "in.csv", "text")).values()) == expected


def test_blocks_are_read_in_any_order_without_their_pictures(tmp_path: Path) -> None:
    rows = [f"{number},{number}.png" for number in range(2500)]
    (tmp_path / "in.csv").write_text("\n".join(["text,image", *rows]) + "\n", encoding="utf-8")
    file = open_rows(tmp_path / "in.csv", "text", image_column="image")
    read = BlockReader()
    for start, stop in ((0, 1000), (1000, 1100), (2000, 2500), (5, 6), (900, 2100)):
        found = read(Block(file, start, stop, file.location))
        assert found["text"].to_pylist() == list(map(str, range(start, stop)))
        assert set(found["fault"].to_pylist()) == {None}, "there are no such pictures"


def test_pictures_are_read_for_the_rows_of_a_block_alone_and_a_missing_one_is_an_error(
    tmp_path: Path, cascade: StubCascade
) -> None:
    cascade.small_side.bundle.reads = IMAGE
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "in.jsonl").write_text('{"image": "a.png"}\n{"image": "b.png"}\n{"image": null}\n', encoding="utf-8")
    file = open_rows(tmp_path / "in.jsonl", None, image_column="image")
    read = BlockReader()(Block(file, 0, 3, file.location))
    rows = CascadeAnswerer(tmp_path, tmp_path, "cpu").answer(file, read).to_pylist()
    assert [row["error"] for row in rows] == [None, "no image file 'b.png': No such file or directory", "no image"]
    assert [item.content.image for item in cascade.asked] == [b"picture"]
