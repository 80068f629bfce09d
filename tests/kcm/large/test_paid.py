"""The file of paid answers: a budget that holds, whoever spends from it and however they end."""

from __future__ import annotations

import threading

import pytest

from kcm.large.paid import BudgetSpent, PaidAnswers


def test_a_call_counts_at_its_most_until_its_cost_is_known(tmp_path):
    paid = PaidAnswers(tmp_path / "paid.sqlite", "big", max_cost=10.0)
    paid.reserve(6.0)
    with pytest.raises(BudgetSpent, match="max_cost = 10, 6 so far"):
        paid.reserve(6.0)
    paid.keep("question", {"said": "yes"}, 6.0, 1.5)
    paid.reserve(6.0)
    assert paid.spent() == (2, 7.5)
    paid.release(6.0)
    assert paid.spent() == (1, 1.5)


def test_a_call_whose_process_died_stays_booked(tmp_path):
    PaidAnswers(tmp_path / "paid.sqlite", "big").reserve(6.0)
    after = PaidAnswers(tmp_path / "paid.sqlite", "big", max_calls=1)
    assert after.spent() == (1, 6.0)
    with pytest.raises(BudgetSpent, match="max_calls = 1"):
        after.reserve(0.0)


def test_accounts_share_answers_and_no_budget(tmp_path):
    first, second = (PaidAnswers(tmp_path / "paid.sqlite", name, max_calls=1) for name in ("big", "small"))
    first.reserve(1.0)
    first.keep("question", {"said": "yes"}, 1.0, 1.0)
    assert second.find("question") == {"said": "yes"}
    assert second.find("another") is None
    assert second.spent() == (0, 0.0)


def test_many_spenders_never_pass_the_budget_together(tmp_path):
    made = []

    def spend():
        own = PaidAnswers(tmp_path / "paid.sqlite", "big", max_calls=10)
        for _ in range(5):
            try:
                own.reserve(0.0)
                made.append(1)
            except BudgetSpent:
                return

    threads = [threading.Thread(target=spend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 10


def test_without_a_file_everything_is_kept_in_memory():
    paid = PaidAnswers(None, "big", max_calls=1)
    paid.reserve(0.0)
    paid.keep("question", {"said": "yes"}, 0.0, 0.0)
    assert paid.find("question") == {"said": "yes"}
    assert PaidAnswers(None, "big").find("question") is None
