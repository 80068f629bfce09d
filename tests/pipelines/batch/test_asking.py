"""Questions that wait for a server are asked from this process; failures are reported, and never stored."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import DataError
from kcm.large import NO_PROMPT, OpenAiConfig, Prompt
from kcm.tasks.shards import write_shards
from pipelines.batch.asking import PROMPT, LargeSpec, ask_shards
from pipelines.store.storage import Storage
from tests.fake_upstream import Turn, label

LABELS = ("negative", "positive")
ROWS = pa.table(
    {
        "id": ["a", "b", "c"],
        "split": ["train", "train", "test"],
        "text": ["one", "two", "three"],
        "image": [b""] * 3,
        "prompt": [PROMPT.dump_json(NO_PROMPT).decode()] * 3,
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


def asked(context, upstream, tmp_path, **changes):
    settings = {"api_key_env": None, "max_retries": 0, "num_concurrent": 1} | changes
    large = OpenAiConfig(model="big", base_url=upstream.base_url, **settings)
    bar = SimpleNamespace(update=lambda done, total: None)
    write_shards(tmp_path, 0, [ROWS])
    sources = {"answers.parquet": tmp_path / "task-0000.parquet"}
    spec = LargeSpec(large, LABELS, len(LABELS))
    _, took = ask_shards(context, spec, sources, tmp_path / "made", scratch=tmp_path / "scratch", bar=bar)
    return pq.read_table(tmp_path / "made" / "answers.parquet"), took


def test_answers_come_in_order_with_what_they_took(context, upstream, tmp_path) -> None:
    upstream.plan(label("positive"), label("negative"), label("other"))
    answers, took = asked(context, upstream, tmp_path, input_price=1e4, output_price=1e5)
    assert answers["large_label"].to_pylist() == [1, 0, -1]
    assert took == {"rows": 3, "tokens": 330, "currency": pytest.approx(6.0)}
    assert not context.lines


def test_failures_are_reported_with_their_commonest_reason(context, upstream, tmp_path) -> None:
    upstream.plan(Turn(500, "[red]down"), label("negative"), Turn(500, "[red]down"))
    answers, took = asked(context, upstream, tmp_path)
    assert answers["large_error"].to_pylist() == [True, False, True]
    assert took["failed"] == 2
    assert context.lines == [
        r"[yellow]the large model failed on 2 of 3 rows, most often: status 500: \[red]down[/yellow]"
    ]


def test_only_the_failed_rows_are_asked_again_when_a_pass_goes_on(context, upstream, tmp_path) -> None:
    upstream.plan(label("positive"), Turn(500, "down"), label("negative"))
    asked(context, upstream, tmp_path)
    num_asked = len(upstream.requests)
    upstream.plan(label("positive"))
    answers, took = asked(context, upstream, tmp_path)
    assert len(upstream.requests) == num_asked + 1
    assert answers["id"].to_pylist() == ["a", "b", "c"]
    assert answers["large_label"].to_pylist() == [1, 1, 0]
    assert "failed" not in took


def test_a_model_that_answers_nothing_stops_the_stage(context, upstream, tmp_path) -> None:
    upstream.otherwise = lambda _: Turn(503, "no capacity")
    with pytest.raises(DataError, match="failed on 3 of 3 rows, most often: status 503: no capacity"):
        asked(context, upstream, tmp_path)
    upstream.otherwise = lambda _: label("positive")
    assert asked(context, upstream, tmp_path)[0]["large_label"].to_pylist() == [1, 1, 1]


@pytest.mark.parametrize(
    "prompt", [NO_PROMPT, Prompt("soft", ((1, 0.75), (0, 0.1234567890123))), Prompt("hard", candidates=(0, 2))]
)
def test_a_prompt_crosses_processes_unchanged(prompt) -> None:
    assert PROMPT.validate_json(PROMPT.dump_json(prompt)) == prompt
