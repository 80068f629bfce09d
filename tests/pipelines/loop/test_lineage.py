"""All attempts of an application share one delta, whichever of them fail."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

from pipelines.loop.recertify import LineageLedger
from pipelines.store.control.records import Control


@pytest.fixture
def ledger(tmp_path: Path) -> LineageLedger:
    return LineageLedger(Control(tmp_path), "demo")


def test_later_attempts_may_spend_less(ledger: LineageLedger) -> None:
    """At delta .1 the first attempt spends 6 delta / pi^2 = .061."""
    spent = [ledger.spend(name, 0.1) for name in ("a", "b", "c")]
    assert [each.number for each in spent] == [1, 2, 3]
    assert [round(each.spend, 3) for each in spent] == [0.061, 0.015, 0.007]


def test_an_attempt_that_starts_again_is_the_same_attempt(ledger: LineageLedger) -> None:
    first = ledger.spend("a", 0.1)
    ledger.spend("b", 0.1)
    assert ledger.spend("a", 0.1) == first
    assert len(ledger.attempts()) == 2


def test_sixty_attempts_spend_no_more_than_delta(tmp_path: Path) -> None:
    ledger = LineageLedger(Control(tmp_path), "demo")
    for number in range(60):
        ledger.spend(str(number), 0.1)
    spent = [each.spend for each in ledger.attempts()]
    tail = 6 * 0.1 / math.pi**2 / 60  # sum over v > n of 1 / v^2 < 1 / n
    assert 0.1 - tail < sum(spent) < 0.1


def test_attempts_at_once_have_different_numbers(tmp_path: Path) -> None:
    numbers: list[int] = []

    def spend(name: str) -> None:
        numbers.append(LineageLedger(Control(tmp_path), "demo").spend(name, 0.1).number)

    threads = [threading.Thread(target=spend, args=(str(name),)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 9))


def test_what_the_next_attempt_may_spend_is_known_before_it_is_written_down(ledger: LineageLedger) -> None:
    ledger.spend("a", 0.1)
    assert ledger.next_spend(0.1, "b") == ledger.spend("b", 0.1).spend


def test_an_attempt_that_starts_again_may_spend_what_is_recorded_for_it(ledger: LineageLedger) -> None:
    """One that was cut off after it had been written down is not taken for the next one, which may spend less."""
    first = ledger.spend("a", 0.1)
    assert ledger.next_spend(0.1, "a") == first.spend > ledger.next_spend(0.1)
