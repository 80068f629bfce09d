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


def test_items_that_lie_together_are_shown_as_a_group_with_examples_and_telling_words() -> None:
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


def test_a_large_model_that_writes_names_groups_by_a_label_or_a_new_one_and_is_paid_once(
    upstream: FakeUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_without_one_that_writes_or_without_its_key_the_telling_words_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    groups = groups_of(similar(("refund", 20, 1)))
    run = config(tmp_path, {"adapter": "openai", "model": "big"})
    large = run.large.naming()
    assert large is not None
    assert with_names(run, large, groups, LABELS) == groups
    assert config(tmp_path, {"adapter": "zero_shot"}).large.naming() is None
