import itertools
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

import pipelines.batch.predict as stage
from kcm.bundle.answers import Answer, Failure, Input
from kcm.cascade.policy import OnLargeFailure, Policy
from kcm.errors import DataError
from kcm.inputs.content import IMAGE, TEXT, Content
from kcm.inputs.location import Location
from kcm.large import Item, LargeModel
from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel
from kcm.parquet import write_table
from pipelines.batch.inputrows import InputReader, InputRows
from pipelines.batch.outputs import predicted_files
from pipelines.batch.predict import PREDICTED, added_columns, predict, row_predictor, write_file
from pipelines.batch.units import FAILED, Counts, units_of
from pipelines.cluster.config import ClusterConfig
from pipelines.progress import Bar, Reporter
from tests.fake_upstream import FakeUpstream, Turn, label
from tests.kcm.bundle.test_bundle import bundle

CONFIDENCE = ("judge_confidence", "answer_probability")


def degraded(text: str) -> Answer:
    return Answer(text, {}, 0.9, 1.5, None, "small_degraded", True, 0.01, fault="the budget is spent")


class StubCascade:
    """Answers with the length of the text, fails at the text `fail`, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Input] = []
        self.large_model: LargeModel | None = None
        self.small_side = SimpleNamespace(
            bundle=SimpleNamespace(task_names=("films",), reads=TEXT, large=SimpleNamespace(is_recorded=False))
        )

    def answer(self, inputs: Sequence[Input]) -> list[Answer | Failure]:
        self.asked += inputs
        return [
            Failure("no tokens left")
            if item.content.text == "fail"
            else degraded(item.content.text)
            if item.content.text == "degrade"
            else Answer(f"length {len(item.content.text)}", {}, 0.9, 1.5, None, "small", False, 0.01)
            for item in inputs
        ]


@pytest.fixture
def cascade(monkeypatch: pytest.MonkeyPatch) -> StubCascade:
    stub = StubCascade()
    monkeypatch.setattr(stage, "load_cascade", lambda *_, **__: stub)
    return stub


def answered(path: Path, content: str, *columns: str | None) -> tuple[list[dict[str, object]], Counts]:
    path.write_text(content, encoding="utf-8")
    file = InputRows.opened(Location.of(path), *columns)
    (rows,) = InputReader()(file, 0, file.num_rows)
    table, counts = row_predictor(path, path, "cpu")(rows)
    return table.to_pylist(), counts


def test_unanswerable_row_says_why_and_others_are_answered(tmp_path: Path, cascade: StubCascade) -> None:
    """Promise: a row that cannot be answered says why and the others are answered."""
    rows, counts = answered(tmp_path / "in.csv", 'text,n\na,1\n" ",2\nfail,3\nshort\nlonger,4\nlong,5,6\n', "text")
    assert [row["error"] for row in rows] == [
        None,
        "no text",
        "no tokens left",
        None,
        None,
        "3 fields instead of 2",
    ]
    assert [row["label"] for row in rows] == ["length 1", None, None, "length 5", "length 6", None]
    assert [row["id"] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    assert counts == {"small": 3, "error": 3, FAILED: 1}, "asking again helps none but one"
    assert [item.content.text for item in cascade.asked] == ["a", "fail", "short", "longer"]


def test_answers_outside_the_promise_say_why(tmp_path: Path, cascade: StubCascade) -> None:
    """Promise: a row that the large model failed has the small model's answer and the reason, and is asked again."""
    rows, counts = answered(tmp_path / "in.csv", "text\na\ndegrade\n", "text")
    assert [row["error"] for row in rows] == [None, "outside the promise: the budget is spent"]
    assert [row["label"] for row in rows] == ["length 1", "degrade"]
    assert counts == {"small": 1, "small_degraded": 1, FAILED: 1}


def test_an_interrupted_prediction_asks_nothing_more(
    tmp_path: Path, cascade: StubCascade, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: Ctrl-C ends the paying, also in the other threads."""
    first_asked, goes_on, others = threading.Event(), threading.Event(), set(threading.enumerate())
    num_first = itertools.count(1)

    def reply(body: dict[str, Any]) -> Turn:
        if "text 1" in body["messages"][-1]["content"]:  # a row of the second unit
            assert goes_on.wait(60)
        elif next(num_first) == 32:
            first_asked.set()
        return label("good")

    def interrupt(bar: Bar, completed: float, total: float) -> None:
        if completed:
            raise KeyboardInterrupt

    def answer(inputs: Sequence[Input]) -> list[Answer | Failure]:
        assert cascade.large_model is not None
        assert inputs[0].content.text.startswith("text 0") or first_asked.wait(60)  # both share two connections
        answers = cascade.large_model.answer([Item("", item.content) for item in inputs])
        return [degraded(str(answer.label)) for answer in answers]

    upstream.otherwise = reply
    monkeypatch.setattr(Bar, "update", interrupt)
    monkeypatch.setattr(cascade, "answer", answer)
    large = OpenAiConfig(model="big", api_key_env=None, base_url=upstream.base_url, num_concurrent=2)
    cascade.large_model = OpenAiModel(large, ("good", "bad"))  # the one that a bundle loads
    monkeypatch.setattr(stage, "Bundle", SimpleNamespace(read=lambda _: bundle(large=large, large_head=None)))
    monkeypatch.setattr(stage, "require_models", lambda *_: None)
    monkeypatch.setattr(stage, "load_large", lambda *_, **__: OpenAiModel(large, ("good", "bad")))
    rows = [*(f"text 0 {row}" for row in range(32)), *(f"text 1 {row}" for row in range(32))]
    (tmp_path / "in.csv").write_text("\n".join(["text", *rows]))
    reporter = Reporter(Console(quiet=True))
    options: dict[str, Any] = {"cluster": ClusterConfig(num_encoders=2), "assets_dir": tmp_path, "reporter": reporter}
    with pytest.raises(KeyboardInterrupt):
        predict(tmp_path, tmp_path / "in.csv", tmp_path / "out.csv", "text", **options)
    goes_on.set()
    for worker in set(threading.enumerate()) - others:
        if worker.name.startswith(("openai", "ThreadPoolExecutor")):
            worker.join(60)
    assert len(upstream.requests) <= 34


@pytest.mark.parametrize("rows", ["a\n", "a\nb\nc\n"], ids=["fewer", "more"])
def test_a_file_that_changes_while_it_is_answered_has_no_output(tmp_path: Path, rows: str) -> None:
    """Promise: answers never stand beside other rows."""
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\na\nb\n")
    (file,), opened = predicted_files(source, target), InputRows.opened(Location.of(source), "text")
    units = units_of(opened, 2, 2, tmp_path / "rows")
    write_table(pa.table([pa.nulls(2, field.type) for field in PREDICTED], schema=PREDICTED), units[0].target)
    source.write_text("text\n" + rows)
    with pytest.raises(DataError, match="the file has changed meanwhile"):
        write_file(file, opened, units, Counter())
    assert not target.exists()


@pytest.mark.parametrize(
    ("is_recorded", "chosen", "expected"),
    [
        (False, "error", "error"),
        (False, "answer_small", "answer_small"),
        (False, None, "error"),
        (True, None, "error"),
    ],
)
def test_on_large_failure_replaces_the_bundles(
    tmp_path: Path, cascade: StubCascade, is_recorded: bool, chosen: OnLargeFailure | None, expected: str
) -> None:
    """Promise: the operator's choice goes before the bundle's; recorded answers that are missing are errors always."""
    cascade.small_side.bundle.large.is_recorded = is_recorded
    cascade.small_side.policy = Policy(on_large_failure="answer_small" if is_recorded else "error")
    row_predictor(tmp_path, tmp_path, "cpu", on_large_failure=chosen)
    assert cascade.small_side.policy.on_large_failure == expected


def test_the_cascade_is_given_id_and_task(tmp_path: Path, cascade: StubCascade) -> None:
    content = "id,text,domain\nx,a,films\ny,b,\nz,c,flims\n"
    rows, _ = answered(tmp_path / "in.csv", content, "text", None, "domain")
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
def test_no_column_of_the_input_is_overwritten(header: str, expected: list[str]) -> None:
    assert list(added_columns(pa.schema([(name, pa.string()) for name in header.split(",")])).values()) == expected


def test_a_picture_that_is_missing_is_an_error_of_its_row(tmp_path: Path, cascade: StubCascade) -> None:
    cascade.small_side.bundle.reads = IMAGE
    (tmp_path / "a.png").write_bytes(b"picture")
    content = '{"image": "a.png"}\n{"image": "b.png"}\n{"image": null}\n'
    rows, _ = answered(tmp_path / "in.jsonl", content, None, "image")
    assert [row["error"] for row in rows] == [None, "no image file 'b.png': No such file or directory", "no image"]
    assert [item.content.image for item in cascade.asked] == [b"picture"]
