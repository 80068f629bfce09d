"""Escalated items that lie together are shown as groups, under telling words or the large model's own."""

from pathlib import Path
from typing import Any

import pytest

from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.loop.window.groups import groups_of, with_names
from tests.fake_upstream import FakeUpstream, completion
from tests.pipelines.loop.logged import similar

LABELS = ("card_lost", "balance")


def test_close_items_form_a_group_with_examples_and_words() -> None:
    """Promise: items that lie together are shown as a group with examples and telling words."""
    groups = groups_of(similar(("refund", 30, 0), ("holiday", 20, 1), ("stray", 3, 2)))
    assert [group.size for group in groups] == [30, 20]
    assert [group.proposal.split("_")[0] for group in groups] == ["refund", "holiday"]
    assert len(groups[0].examples) == 5
    assert groups[0].answers == {"good": 30}
    assert groups[0].agreement == 0.0  # the small side would have answered otherwise


def config(folder: Path, large: dict[str, Any]) -> RunConfig:
    tasks = {"source": {"kind": "files", "path": "rows.csv"}}
    values = {"name": "bank", "storage_path": str(folder), "tasks": tasks, "encoder": {"model": "x"}, "large": large}
    return parse_config(RunConfig, values)


def test_writing_large_model_names_groups_and_is_paid_once(
    upstream: FakeUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a large model that writes names groups by a label or a new one and is paid once."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-key")
    server = {"adapter": "openai", "base_url": upstream.base_url, "model": "big", "num_concurrent": 1, "max_retries": 0}
    groups = groups_of(similar(("balance", 30, 0), ("refund", 20, 1), ("noise", 15, 2)))
    said = {"balance number": "balance", "refund number": "money back"}

    def answered(body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        return next((completion(name) for words, name in said.items() if words in text), completion(""))

    upstream.otherwise = answered
    run = config(tmp_path, server)
    large = run.large.naming()
    assert large is not None
    named = with_names(run, large, groups, LABELS)
    assert [group.proposal for group in named] == ["balance", "money back", groups[2].proposal]
    asked = len(upstream.requests)
    assert asked == 3
    assert "response_format" not in upstream.requests[0]
    assert "card_lost, balance" in upstream.requests[0]["messages"][0]["content"]
    with_names(run, large, groups[:2], LABELS)
    assert len(upstream.requests) == asked


def test_characteristic_words_stay_without_a_writing_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: without one that writes or without its key the telling words stay."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    groups = groups_of(similar(("refund", 20, 1)))
    run = config(tmp_path, {"adapter": "openai", "model": "big"})
    large = run.large.naming()
    assert large is not None
    assert with_names(run, large, groups, LABELS) == groups
    assert config(tmp_path, {"adapter": "zero_shot"}).large.naming() is None
