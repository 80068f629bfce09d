"""Answers of a server's batch interface: at half the price, of one batch however often a run is killed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kcm.errors import DataError
from kcm.inputs.content import Content
from kcm.large import Item, batches
from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel
from kcm.large.response_cache import ResponseStore
from tests.fake_upstream import FakeUpstream, Turn, completion, label

LABELS = ("negative", "positive")
ITEMS = [Item(str(number), Content(text)) for number, text in enumerate(["one", "two", "three", "one", ""])]
QUESTION = 1e4 * 100 / 1e6 + 1e5 * 10 / 1e6  # what the fake server's 100 and 10 tokens cost


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_PAUSE_S", 0.01)


@pytest.fixture
def model(upstream: FakeUpstream, tmp_path: Path) -> Callable[..., OpenAiModel]:
    def make(**changes: Any) -> OpenAiModel:
        settings = {"batch": True, "input_price": 1e4, "output_price": 1e5, "max_retries": 0, "api_key_env": None}
        config = OpenAiConfig(**{"base_url": upstream.base_url, "model": "big"} | settings | changes)
        return OpenAiModel(config, LABELS, ResponseStore.in_file(tmp_path / "paid.sqlite"))

    return make


def singly(upstream: FakeUpstream) -> int:
    """Questions that were asked one by one."""
    return sum(path.endswith("/chat/completions") for path in upstream.paths)


def test_a_batch_costs_half_and_nothing_is_asked_again(model, upstream: FakeUpstream) -> None:
    asked = model()
    asked.ask_ahead([ITEMS[:2], ITEMS[2:]])
    assert singly(upstream) == 1  # a first question, which finds out what parameters the server takes
    assert asked.spent() == (4, pytest.approx(QUESTION + 3 * QUESTION / 2))
    assert [answer.label for answer in asked.answer(ITEMS)] == [1, 1, 1, 1, None]
    model().ask_ahead([ITEMS])
    assert (singly(upstream), len(upstream.batches)) == (1, 1)
    (batch,) = upstream.batches
    assert (batch["endpoint"], batch["completion_window"]) == ("/v1/chat/completions", "24h")


@pytest.mark.parametrize("named", [True, False], ids=["after it was named", "before it was named"])
def test_a_run_that_is_killed_goes_on_with_the_same_batch(
    model, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    killed = model()
    step = (batches.Batches, "_ended") if named else (killed._cache, "name_batch")
    with monkeypatch.context() as kill:
        kill.setattr(*step, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            killed.ask_ahead([ITEMS])
    again = model()
    assert again.spent()[0] == 4  # the batch is booked
    again.ask_ahead([ITEMS])
    assert len(upstream.batches) == 1
    assert again.spent() == (4, pytest.approx(QUESTION + 3 * QUESTION / 2))


def test_kill_while_reading_answers_pays_nothing_twice(
    model, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a run that is killed while it reads the answers pays none twice."""
    killed = model()
    keep, kept = killed._cache.keep, []
    with monkeypatch.context() as kill:
        kill.setattr(killed._cache, "keep", lambda *given: keep(*given) if kept.append(1) or len(kept) < 3 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            killed.ask_ahead([ITEMS])
    again = model()
    again.ask_ahead([ITEMS])
    assert again.spent() == (4, pytest.approx(QUESTION + 3 * QUESTION / 2))
    assert (singly(upstream), len(upstream.batches)) == (1, 1)


def test_batch_killed_before_creation_stays_booked(
    model, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a batch of a run that was killed before it was created stays booked and is not looked for again."""
    killed = model()
    with monkeypatch.context() as kill:
        kill.setattr(batches.OpenAI, "files", property(lambda _: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            killed.ask_ahead([ITEMS])
    again = model()
    again.ask_ahead([ITEMS])
    assert len(upstream.batches) == 1
    assert again.spent()[0] == 2 + 3 + 3  # a first question and a batch of each run
    assert again._cache.open_batches() == []


def test_questions_left_by_a_batch_are_asked_singly(model, upstream: FakeUpstream) -> None:
    """Promise: questions that a batch leaves are asked singly and prose is an answer."""
    upstream.plan(label("positive"), completion("I would say positive"), Turn(500, "down"), label("negative"))
    asked = model()
    asked.ask_ahead([ITEMS])
    assert asked.spent() == (3, pytest.approx(QUESTION + 2 * QUESTION / 2))
    upstream.otherwise = lambda _: label("negative")
    answers = asked.answer(ITEMS)
    assert [(answer.label, answer.off_label) for answer in answers[:3]] == [(None, True), (0, False), (0, False)]
    assert singly(upstream) == 2


def test_a_batch_beyond_the_budget_is_not_sent(model, upstream: FakeUpstream) -> None:
    with pytest.raises(DataError, match="a batch of 3 questions does not fit: the budget is spent: max_calls = 3"):
        model(max_calls=3).ask_ahead([ITEMS])
    assert upstream.batches == []


def test_a_batch_that_fails_is_an_error_and_costs_nothing(model, upstream: FakeUpstream) -> None:
    upstream.plan(label("positive"), *[Turn(500, "down")] * 3)
    asked = model()
    with pytest.raises(DataError, match="batch batch-0 is completed: no question was answered"):
        asked.ask_ahead([ITEMS])
    assert asked.spent() == (1, pytest.approx(QUESTION))


def test_many_questions_are_several_batches(model, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_QUESTIONS", 2)
    model().ask_ahead([ITEMS])
    sent = [upstream.files[batch["input_file_id"]].splitlines() for batch in upstream.batches]
    assert [len(lines) for lines in sent] == [2, 1]
    assert len({json.loads(line)["custom_id"] for lines in sent for line in lines}) == 3


def test_the_estimate_is_of_half_the_price(model) -> None:
    half, whole = model().estimate(ITEMS), model(batch=False).estimate(ITEMS)
    assert (half.currency, half.most) == (pytest.approx(whole.currency / 2), pytest.approx(whole.most / 2))
