"""Questions that wait for a server are asked from this process; failures are reported, and never stored."""

import re
import threading
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import DataError
from kcm.large import LargeAnswer, batches
from kcm.large.adapters.openai import OpenAiConfig
from kcm.tasks.shards import write_shards
from pipelines.batch.asking import ask_shards, row_answerer
from pipelines.store.sequence import Names
from pipelines.store.storage import Storage
from tests.fake_upstream import Turn, completion, label

LABELS = ("negative", "positive")
ROWS = pa.table(
    {
        "id": ["a", "b", "c"],
        "split": ["train", "train", "test"],
        "text": ["one", "two", "three"],
        "image": [b""] * 3,
    }
)


@pytest.fixture
def context(tmp_path) -> Any:
    """As much of a run as asking needs; `said` is what it printed."""
    lines: list[str] = []
    return SimpleNamespace(
        assets_path=tmp_path,
        cluster=None,
        responses=None,
        store=SimpleNamespace(root=tmp_path, storage=Storage.at(tmp_path)),
        reporter=SimpleNamespace(say=lines.append),
        lines=lines,
    )


def asked(context, upstream, tmp_path, rows=ROWS, labels=LABELS, **changes):
    settings = {"api_key_env": None, "max_retries": 0, "num_concurrent": 1, "max_failed": 0.9} | changes
    large = OpenAiConfig(model="big", base_url=upstream.base_url, **settings)
    attempt: Any = SimpleNamespace(context=context, bar=SimpleNamespace(update=lambda done, total: None))
    tmp_path.mkdir(exist_ok=True)
    write_shards(tmp_path, 0, [rows])
    sources = {"answers.parquet": tmp_path / "task-0000.parquet"}
    took = ask_shards(attempt, large, Names((), labels, None), sources, tmp_path / "made", tmp_path / "scratch")
    return pq.read_table(tmp_path / "made" / "answers.parquet"), took


def test_answers_come_in_order_with_what_they_took(context, upstream, tmp_path) -> None:
    upstream.plan(label("positive"), label("negative"), label("other"))
    answers, took = asked(context, upstream, tmp_path, input_price=1e4, output_price=1e5)
    assert answers["large_label"].to_pylist() == [1, 0, -1]
    assert took == {
        "rows": 3,
        "tokens": 330,
        "currency": pytest.approx(6.0),
        "failed": 0,
        "waiting": 0,
        "off_label": 1,
        "off_label_replies": ["other"],
    }


def test_answers_off_the_label_list_are_counted_and_shown(context, upstream, tmp_path) -> None:
    upstream.plan(label("positive"), completion("Sure! I [bold]love[/bold] it"), label("negative"))
    asked(context, upstream, tmp_path)
    assert context.lines[-1] == (
        "[yellow]1 of 3 answers (33.3%) are not on the label list and count as wrong, such as"
        r" 'Sure! I \[bold]love\[/bold] it'[/yellow]"
    )


def test_changed_question_states_the_cost_of_asking_again(context, upstream, tmp_path) -> None:
    """Promise: calls and price are said before and after; a changed question or label says what asking again costs."""
    prices = {"input_price": 1e4, "output_price": 1e5}
    asked(context, upstream, tmp_path, **prices)
    before, after = context.lines
    assert re.fullmatch(
        r"asking big: 3 calls for 3 rows, about \d+ tokens, [\d.]+, at most [\d.]+; paid before in this store:"
        r" 0 calls",
        before,
    )
    assert after == "the large model was paid for 3 calls, 6"
    asked(context, upstream, tmp_path / "again", **prices)
    assert context.lines[2].startswith("asking big: 0 calls for 3 rows")
    described = {"descriptions": {"negative": "the writer is unhappy"}}
    asked(context, upstream, tmp_path / "described", prompt=described, **prices)
    assert context.lines[4].startswith("asking big: 3 calls for 3 rows")
    assert context.lines[4].endswith("paid before in this store: 3 calls, 6")
    asked(context, upstream, tmp_path / "more", labels=(*LABELS, "neither"), **prices)
    assert context.lines[6].startswith("asking big: 3 calls for 3 rows")
    assert context.lines[6].endswith("paid before in this store: 6 calls, 12")


def test_rows_are_asked_in_a_batch_where_that_is_wanted(context, upstream, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(batches, "_PAUSE_S", 0.01)
    upstream.plan(label("positive"), label("positive"), label("negative"), label("other"))
    answers, took = asked(context, upstream, tmp_path, batch=True, input_price=1e4, output_price=1e5)
    assert answers["large_label"].to_pylist() == [1, 0, -1]
    assert took["currency"] == pytest.approx(3.0)
    assert context.lines[1].startswith("[yellow]batch batch-0: 3 questions; if the run is interrupted, start it again")
    assert context.lines[2] == "the large model was paid for 4 calls, 5"


def test_next_questions_are_asked_while_one_is_slow(context, upstream, tmp_path) -> None:
    """One question is answered when all others are; a batch that waits for its slowest would never ask those."""
    num_rows = 40
    rows = pa.table({name: ROWS[name].take([0] * num_rows) for name in ROWS.column_names})
    rows = rows.set_column(0, "id", pa.array(map(str, range(num_rows))))
    rows = rows.set_column(2, "text", pa.array([f"text {number}" for number in range(num_rows)]))
    answered, all_others = iter(range(num_rows)), threading.Event()

    def reply(body: dict[str, Any]) -> Turn:
        if "text 3\n" in body["messages"][-1]["content"]:
            assert all_others.wait(55), "the others were not asked"
        elif next(answered) == num_rows - 2:
            all_others.set()
        return label("positive")

    upstream.otherwise = reply
    answers, _ = asked(context, upstream, tmp_path, rows=rows, num_concurrent=2)
    assert answers["large_label"].to_pylist() == [1] * num_rows


def test_server_outage_and_return_are_reported(context, upstream, tmp_path) -> None:
    """Promise: a server that goes away is said while it is away and when it is back."""
    upstream.plan(*[Turn(500, "down")] * 4)
    asked(context, upstream, tmp_path, max_retries=5, max_wait_s=0.01)
    _, gone, back, _ = context.lines
    assert (
        gone
        == f"[yellow]the large model at {upstream.base_url} has not answered: status 500: down; trying again[/yellow]"
    )
    assert back == f"[yellow]the large model at {upstream.base_url} answers again[/yellow]"


def test_too_many_failures_stop_and_keep_the_answers(context, upstream, tmp_path) -> None:
    """Promise: more failures than allowed stop the pass and keep the answers."""
    upstream.plan(label("positive"), Turn(500, "down"), label("negative"))
    with pytest.raises(DataError, match=r"failed on 1 of 3 rows; large.max_failed allows 2.0%, most often: status 500"):
        asked(context, upstream, tmp_path, max_failed=0.02)
    num_asked = len(upstream.requests)
    asked(context, upstream, tmp_path, max_failed=0.02)
    assert len(upstream.requests) == num_asked + 1


def test_failures_are_reported_with_their_commonest_reason(context, upstream, tmp_path) -> None:
    upstream.plan(Turn(500, "[red]down"), label("negative"), Turn(500, "[red]down"))
    answers, took = asked(context, upstream, tmp_path)
    assert answers["large_error"].to_pylist() == [True, False, True]
    assert took["failed"] == 2
    assert context.lines[-1] == (
        "[yellow]the large model failed on 2 of 3 rows; the next run asks again; most often:"
        r" status 500: \[red]down[/yellow]"
    )


def test_invalid_custom_adapter_answer_ends_the_run_by_row() -> None:
    """Promise: no certificate is computed of answers that are none."""
    answer = LargeAnswer(2)
    model: Any = SimpleNamespace(answer=lambda items: [LargeAnswer(0), answer, LargeAnswer(1)])
    with pytest.raises(DataError, match="a label that is not on the list, to row 'b'"):
        row_answerer(model, Names((), LABELS, None), "none")(ROWS)
