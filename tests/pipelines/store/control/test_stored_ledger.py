"""Looks in a bucket are numbered without gaps, whoever writes them; repeated work is the same look."""

from __future__ import annotations

import threading

import pytest

from kcm.certify.ledger import look_delta
from kcm.errors import ArtefactError
from pipelines.store.control.journal import StoredLedger
from pipelines.store.control.records import Control
from pipelines.store.files import Files


def test_sixteen_writers_take_sixteen_looks(place: str) -> None:
    control = Control(Files.at(place))
    threads = [
        threading.Thread(target=StoredLedger(control).look, args=("rows", 0.1, f"purpose {number}"))
        for number in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    looks = StoredLedger(control).looks("rows")
    assert [look.number for look in looks] == list(range(1, 17))
    assert [look.spend for look in looks] == [look_delta(0.1, number) for number in range(1, 17)]
    assert {look.purpose for look in looks} == {f"purpose {number}" for number in range(16)}


def test_the_same_purpose_is_the_same_look_and_other_rows_begin_anew(place: str) -> None:
    ledger = StoredLedger(Control(Files.at(place)))
    first = ledger.look("rows", 0.1, "reviews")
    assert ledger.look("rows", 0.1, "reviews") == first
    assert ledger.look("rows", 0.1, "another").number == 2
    assert ledger.look("other rows", 0.1, "reviews").number == 1


def test_a_damaged_look_is_refused(place: str) -> None:
    control = Control(Files.at(place))
    control.create("ledger/rows", b"{")
    with pytest.raises(ArtefactError, match="ledger of looks is damaged"):
        StoredLedger(control).look("rows", 0.1, "reviews")
