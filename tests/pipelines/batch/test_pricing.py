"""Promise: what a prediction will cost is said before it starts, and what it did cost after."""

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console

from kcm.bundle.bundle import Bundle
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.inputs.location import Location
from kcm.large import Item, LargeAnswer
from kcm.large.base import Estimate
from pipelines.batch import pricing
from pipelines.batch.inputrows import InputRows
from pipelines.batch.pricing import paying, price_of_escalated
from pipelines.progress import Reporter
from tests.kcm.bundle.test_bundle import bundle


class Priced:
    """A server that takes .01 for a call, at most .05, and was paid for the text `known`."""

    rows_per_batch, max_failed = 64, 0.02

    def __init__(self) -> None:
        self.paid = (7, 0.07)

    def estimate(self, items: Sequence[Item]) -> Estimate:
        calls = sum(item.content.text != "known" for item in items)
        return Estimate(calls, 10 * calls, 0.01 * calls, 0.05 * calls)

    def spent(self) -> tuple[int, float]:
        return self.paid

    def probe(self) -> LargeAnswer:
        raise AssertionError("nothing is asked")

    def ask_ahead(self, items: Iterable[Sequence[Item]]) -> None:
        raise AssertionError("nothing is asked")

    def ask(self, item: Item) -> Future[LargeAnswer]:
        raise AssertionError("nothing is asked")

    def close(self) -> None:
        pass


def said(tmp_path: Path, made: Bundle, num_rows: int) -> str:
    file = tmp_path / "in.csv"
    file.write_text("text\n" + "".join(f"{'known' if row % 2 else row}\n" for row in range(num_rows)))
    terminal, model = io.StringIO(), Priced()
    reporter = Reporter(Console(file=terminal, width=400))
    price = partial(price_of_escalated, bundle=made, files=[InputRows.opened(Location.of(file), "text")])
    with paying(model, made.large, price, reporter):
        model.paid = (20, 0.2)
    return terminal.getvalue()


def test_the_price_is_that_of_rows_that_escalate(tmp_path: Path) -> None:
    """Promise: at the certified call rate, without what is paid for already; the most is that of every row."""
    first, second = said(tmp_path, bundle(), 100).splitlines()
    assert "about 20 calls for 100 rows, at a call rate of 40%, 0.2, at most 2.5" in first
    assert first.endswith("paid before in this store: 7 calls, 0.07")
    assert second == "the large model was paid for 13 calls, 0.13"


def test_a_large_file_is_priced_by_its_first_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: the price of a file of any size costs a look at some rows, and is in proportion."""
    monkeypatch.setattr(pricing, "MOST_PRICED", 10)
    assert "about 200 calls for 1,000 rows" in said(tmp_path, bundle(), 1000)


def test_a_policy_that_keeps_all_costs_nothing(tmp_path: Path) -> None:
    """Promise: the call rate is that of the policy, where this alone decides."""
    assert "about 0 calls for 10 rows" in said(tmp_path, bundle(policy=Policy(decision=KEEP_ALL)), 10)
    residuals = dict.fromkeys(("metric_CC", "target_C", "offset_C"), torch.zeros(3, 3))
    far = bundle(policy=Policy(decision=KEEP_ALL, farthest=1.0), learner_state={"residuals": residuals})
    assert "at a call rate of 40%" in said(tmp_path, far, 10)  # its certify rows tell how many are far
