"""Asking a server about many texts, for money that may be limited."""

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from kcm.labelling.label_list import LabelList
from kcm.labelling.oracle import Progress, ServerOracle
from kcm.large.adapters.openai import openai_config
from kcm.large.base import Estimate, Item, LargeAnswer
from kcm.large.response_cache import ResponseStore


class CountedModel:
    """Answers a text with its number modulo 3; every tenth is off the label list at first. It has overspent."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ask(self, item: Item, *, again: bool = False) -> Future[LargeAnswer]:
        self.asked.append(item.content.text)
        number, future = int(item.content.text), Future[LargeAnswer]()
        off_label = number % 10 == 0 and not again
        future.set_result(LargeAnswer(None if off_label else number % 3, off_label=off_label))
        return future

    def spent(self) -> tuple[int, float]:
        return len(self.asked), 0.0

    def left(self) -> float:
        return -4.0

    def estimate(self, items: Sequence[Item]) -> Estimate:
        return Estimate()

    def highest_prices(self, items: Sequence[Item]) -> list[float]:
        return [0.0 if int(item.content.text) < 2 else 0.2 for item in items]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> CountedModel:
    model = CountedModel()
    monkeypatch.setattr("kcm.labelling.oracle.OpenAiModel", lambda *_, **__: model)
    return model


def oracle(num_texts: int, folder: Path, progress: Progress, max_cost: float | None = None) -> ServerOracle:
    config = openai_config("some", "http://127.0.0.1:9/v1", input_price=1.0)
    store = ResponseStore.in_file(folder / "paid")
    texts = [str(number) for number in range(num_texts)]
    return ServerOracle(config, texts, LabelList.of("a,b,c"), store, "job", max_cost, progress, print)


def test_questions_wait_in_memory_a_part_at_a_time(
    monkeypatch: pytest.MonkeyPatch, model: CountedModel, tmp_path: Path
) -> None:
    """Promise: a million questions are not a million waiting requests, and each answer finds its text."""
    monkeypatch.setattr("kcm.labelling.oracle._AT_ONCE", 7)
    ahead = list[int]()
    units = np.random.default_rng(0).permutation(100)[:60]
    found = oracle(100, tmp_path, lambda bought, spent: ahead.append(len(model.asked) - bought))(units)

    assert (found == units % 3).all()
    assert sorted(model.asked) == sorted([*(str(unit) for unit in units), *(str(u) for u in units if u % 10 == 0)])
    assert max(ahead[:60]) < 7


def test_paid_answers_are_free_under_a_lowered_cap(model: CountedModel, tmp_path: Path) -> None:
    """A cap below what was spent buys nothing new, and takes no paid answer away."""
    assert oracle(3, tmp_path, lambda *_: None, max_cost=1.0).affords(np.arange(3)) == 2
