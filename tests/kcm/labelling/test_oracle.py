"""Asking a server about many texts."""

from concurrent.futures import Future
from typing import cast

import numpy as np
import pytest

from kcm.labelling.oracle import ServerOracle
from kcm.large.adapters.openai import OpenAiModel
from kcm.large.base import Item, LargeAnswer


class CountedModel:
    """Answers a text with its number modulo 3; every tenth is off the label list at first."""

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


def test_questions_wait_in_memory_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a million questions are not a million waiting requests, and each answer finds its text."""
    monkeypatch.setattr("kcm.labelling.oracle._AT_ONCE", 7)
    model, ahead = CountedModel(), list[int]()
    texts = [str(number) for number in range(100)]

    def progress(bought: int, spent: float) -> None:
        ahead.append(len(model.asked) - bought)

    oracle = ServerOracle(cast(OpenAiModel, model), texts, progress)
    units = np.random.default_rng(0).permutation(100)[:60]
    found = oracle(units)

    assert (found == units % 3).all()
    assert sorted(model.asked) == sorted([*(str(unit) for unit in units), *(str(u) for u in units if u % 10 == 0)])
    assert max(ahead[:60]) < 7
