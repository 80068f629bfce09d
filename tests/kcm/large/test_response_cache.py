"""The file of paid answers: a budget that holds, whoever spends from it and however they end."""

import contextlib
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from kcm.errors import ArtefactError, ConfigError
from kcm.large import response_cache as module
from kcm.large.response_cache import BudgetSpent, Claimed, ResponseCache, ResponseStore


@pytest.fixture
def store(tmp_path):
    """A database that is shared."""
    return ResponseStore.in_file(tmp_path / "paid.sqlite")


def test_a_call_counts_at_its_most_until_its_cost_is_known(store):
    cache = ResponseCache(store, "big", max_cost=10.0)
    cache.reserve(6.0)
    with pytest.raises(BudgetSpent, match="max_cost = 10, 6 so far"):
        cache.reserve(6.0)
    cache.keep("question", {"said": "yes"}, 6.0, 1.5)
    cache.reserve(6.0)
    assert cache.spent() == (2, 7.5)
    cache.release(6.0)
    assert cache.spent() == (1, 1.5)


def test_a_call_whose_process_died_stays_booked(store):
    ResponseCache(store, "big").reserve(6.0)
    after = ResponseCache(store, "big", max_calls=1)
    assert after.spent() == (1, 6.0)
    with pytest.raises(BudgetSpent, match="max_calls = 1"):
        after.reserve(0.0)


def test_accounts_share_answers_and_no_budget(store):
    first, second = (ResponseCache(store, name, max_calls=1) for name in ("big", "small"))
    first.reserve(1.0)
    first.keep("question", {"said": "yes"}, 1.0, 1.0)
    assert second.find("question") == {"said": "yes"}
    assert second.find("another") is None
    assert second.spent() == (0, 0.0)


def test_a_question_is_claimed_by_one_process_until_it_is_answered_or_over(store):
    """Promise: a second process books nothing for a question under way; an answer, an end and time free it."""
    one, other = ResponseCache(store, "big"), ResponseCache(store, "big")
    one.reserve(1.0, claim=("question", 60.0))
    with pytest.raises(Claimed):
        other.reserve(1.0, claim=("question", 60.0))
    assert other.spent() == (1, 1.0)
    one.reserve(1.0, claim=("question", 0.0))  # a retry of its own
    other.reserve(1.0, claim=("question", 60.0))  # the claim is over
    with pytest.raises(Claimed):
        one.reserve(1.0, claim=("question", 60.0))
    other.unclaim("question")
    one.reserve(1.0, claim=("question", 60.0))
    one.keep("question", {"said": "yes"}, 1.0, 1.0)
    with pytest.raises(Claimed):  # there is an answer
        other.reserve(1.0, claim=("question", 60.0))


def test_claim_of_a_process_that_has_ended_is_void(store):
    """Promise: a restart after a kill asks at once what was under way."""
    script = (
        "import sys; from kcm.large.response_cache import ResponseCache, ResponseStore\n"
        "ResponseCache(ResponseStore(sys.argv[1]), 'big').reserve(1.0, claim=('question', 1e9))"
    )
    subprocess.run([sys.executable, "-c", script, store.url], check=True)
    ResponseCache(store, "big").reserve(1.0, claim=("question", 60.0))


@pytest.mark.parametrize("budget", [{"max_calls": 10}, {"max_cost": 10.0}], ids=["calls", "currency"])
def test_many_spenders_never_pass_the_budget_together(store, budget):
    """Promise: what an account has left is checked and taken in one step."""
    caches = [ResponseCache(store, "big", **budget) for _ in range(6)]

    def spend(cache):
        with contextlib.suppress(BudgetSpent):
            for _ in range(10):
                cache.reserve(1.0)

    threads = [threading.Thread(target=spend, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caches[0].spent() == (10, 10.0)


def test_a_database_that_is_gone_is_missed_and_not_begun_anew(store, tmp_path):
    """Promise: nobody gets a budget back by deleting the record of what was spent."""
    cache = ResponseCache(store, "big", max_calls=5)
    (tmp_path / "paid.sqlite").unlink()
    with pytest.raises(ArtefactError, match="cannot use the store of paid answers"):
        cache.reserve(0.0)
    assert not (tmp_path / "paid.sqlite").exists()


def test_locked_database_is_waited_for_once(tmp_path):
    """Promise: of many questions that queue, one waits for a locked database, and the others fail at once."""
    now, place = [0.0], tmp_path / "paid.sqlite"
    store = replace(ResponseStore.in_file(place), timeout_s=0.05)
    cache = ResponseCache(store, "big", max_calls=5, clock=lambda: now[0])
    with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ArtefactError, match="locked"):
            cache.reserve(1.0)
        other.execute("COMMIT")
    for ask in (lambda: cache.reserve(1.0), lambda: cache.find("question")):  # free again, and not even looked at
        with pytest.raises(ArtefactError, match="locked"):
            ask()
    cache.keep("question", {"said": "yes"}, 0.0, 0.0)  # an answer that was paid for is never given up so
    now[0] = 0.06
    cache.reserve(1.0)
    assert cache.find("question") == {"said": "yes"}


def test_memory_holds_no_more_than_the_last_answers(monkeypatch):
    """Promise: a service that asks for ever does not grow for ever."""
    monkeypatch.setattr(module, "MAX_IN_MEMORY", 10)
    cache = ResponseCache(None, "big")
    for number in range(50):
        cache.reserve(0.0)
        cache.keep(str(number), {"said": str(number)}, 0.0, 0.0)
    answers = [cache.find(str(number)) for number in range(50)]
    assert answers == [None] * 40 + [{"said": str(number)} for number in range(40, 50)]
    assert cache.spent() == (50, 0.0)


def test_a_place_names_one_store(tmp_path, monkeypatch):
    """Promise: a folder, a file or a database is a store; without any it is the user's own, the same each time."""
    for place in (tmp_path, tmp_path / "paid.sqlite"):
        assert ResponseStore.at(str(place)) == ResponseStore.in_file(tmp_path / "paid.sqlite")
    assert ResponseStore.at("postgresql+psycopg://me@host/db").url == "postgresql+psycopg://me@host/db"
    with pytest.raises(ConfigError, match=r"cannot be stored at .*Name a folder"):
        ResponseStore.at("s3://bucket")
    monkeypatch.delenv("KCM_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert ResponseStore.of_user() == ResponseStore.in_file(tmp_path / "data" / "kcm" / "paid.sqlite")
    ResponseCache(ResponseStore.of_user(), "big").reserve(1.0)
    assert (tmp_path / "data" / "kcm" / "paid.sqlite").exists()
    monkeypatch.setenv("KCM_STORE", str(tmp_path))
    assert ResponseStore.of_user() == ResponseStore.at(str(tmp_path))
