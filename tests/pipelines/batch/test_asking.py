"""Questions that wait for a server are asked from this process; failures are told, and never kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from kcm.errors import DataError
from kcm.large import NO_PROMPT, OpenAiConfig, Prompt
from pipelines.batch.asking import LargeSpec, ask, read_prompt, written_prompt
from pipelines.batch.pool import retain
from pipelines.store.storage import Storage
from tests.fake_upstream import Turn, label

LABELS = ("negative", "positive")
ROWS = pa.table(
    {
        "id": ["a", "b", "c"],
        "text": ["one", "two", "three"],
        "image": [b""] * 3,
        "prompt": [written_prompt(NO_PROMPT)] * 3,
    }
)


@pytest.fixture
def context(tmp_path) -> Any:
    """As much of a run as asking needs; `said` is what it told."""
    lines: list[str] = []
    return SimpleNamespace(
        assets_path=tmp_path,
        responses=None,
        store=SimpleNamespace(root=tmp_path),
        reporter=SimpleNamespace(say=lines.append),
        lines=lines,
    )


def asked(context, upstream, tmp_path, **changes):
    settings = {"api_key_env": None, "max_retries": 0, "num_concurrent": 1} | changes
    large = OpenAiConfig(model="big", base_url=upstream.base_url, **settings)
    bar = SimpleNamespace(update=lambda done, total: None)
    return ask(context, LargeSpec(large, LABELS, len(LABELS)), ROWS, scratch=tmp_path / "scratch", bar=bar)


def test_answers_come_in_order_with_what_they_took(context, upstream, tmp_path) -> None:
    upstream.plan(label("positive"), label("negative"), label("other"))
    answers, took = asked(context, upstream, tmp_path, input_price=1e4, output_price=1e5)
    assert answers.label_N.tolist() == [1, 0, -1]
    assert took == {"rows": 3, "tokens": 330, "currency": pytest.approx(6.0)}
    assert not context.lines


def test_failures_are_told_with_their_commonest_reason(context, upstream, tmp_path) -> None:
    upstream.plan(Turn(500, "[red]down"), label("negative"), Turn(500, "[red]down"))
    answers, took = asked(context, upstream, tmp_path)
    assert answers.failed_N.tolist() == [True, False, True]
    assert took["failed"] == 2
    assert context.lines == [
        r"[yellow]the large model failed on 2 of 3 rows, most often: status 500: \[red]down[/yellow]"
    ]


def test_a_model_that_answers_nothing_stops_the_stage(context, upstream, tmp_path) -> None:
    upstream.otherwise = lambda _: Turn(503, "no capacity")
    with pytest.raises(DataError, match="failed on 3 of 3 rows, most often: status 503: no capacity"):
        asked(context, upstream, tmp_path)
    upstream.otherwise = lambda _: label("positive")
    assert asked(context, upstream, tmp_path)[0].label_N.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "prompt", [NO_PROMPT, Prompt("soft", ((1, 0.75), (0, 0.1234567890123))), Prompt("hard", candidates=(0, 2))]
)
def test_a_prompt_crosses_processes_unchanged(prompt) -> None:
    assert read_prompt(written_prompt(prompt)) == prompt


def test_failed_rows_of_an_interrupted_pass_are_forgotten(tmp_path) -> None:
    parts = {"mixed": [False, True, False], "good": [False], "bad": [True, True]}
    for name, failed in parts.items():
        rows = [f"{name} {number}" for number in range(len(failed))]
        pq.write_table(pa.table({"row": rows, "failed": failed}), tmp_path / f"{name}.parquet")
    retain(tmp_path, ~pc.field("failed"), Storage.at(tmp_path))
    left = [row for path in tmp_path.glob("*.parquet") for row in pq.read_table(path)["row"].to_pylist()]
    assert sorted(left) == ["good 0", "mixed 0", "mixed 2"]
    assert not np.any([pq.read_table(path)["failed"].to_numpy().any() for path in tmp_path.glob("*.parquet")])
