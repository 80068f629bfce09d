"""The ledger: each look at the same rows pays, across processes, and nothing is ever forgotten."""

import math
import subprocess
import sys

import pytest

from kcm.certification.ledger import Ledger, look_delta, split_fingerprint
from kcm.errors import ArtefactError, DataError


def test_all_looks_ever_spend_delta_together():
    spent = sum(look_delta(0.1, number) for number in range(1, 200_000))
    assert spent == pytest.approx(0.1, rel=1e-5)
    assert spent < 0.1
    assert look_delta(0.1, 1) == pytest.approx(0.6 / math.pi**2)
    assert look_delta(0.1, 2) == pytest.approx(look_delta(0.1, 1) / 4)


def test_each_look_at_the_same_rows_is_smaller_and_fresh_rows_start_anew(tmp_path):
    ledger = Ledger(tmp_path / "runs" / "ledger.json")
    looks = [
        ledger.look(*look) for look in (("old", 0.1, "a"), ("old", 0.1, "b"), ("new", 0.1, "a"), ("old", 0.1, "c"))
    ]
    assert [look.number for look in looks] == [1, 2, 1, 3]
    assert [look.spend for look in looks] == [look_delta(0.1, number) for number in (1, 2, 1, 3)]


def test_the_same_work_started_again_is_the_same_look(tmp_path):
    ledger = Ledger(tmp_path / "ledger.json")
    looks = [ledger.look("rows", 0.1, purpose) for purpose in ("first", "second", "first")]
    assert [look.number for look in looks] == [1, 2, 1]
    assert ledger.look("rows", 0.1, "third").number == 3


_THREE_LOOKS = """
import sys, pathlib
from kcm.certification.ledger import Ledger
for number in range(3):
    print(Ledger(pathlib.Path(sys.argv[1])).look("rows", 0.1, f"{sys.argv[2]} {number}").number)
"""


def test_looks_of_several_processes_are_all_counted(tmp_path):
    command = [sys.executable, "-c", _THREE_LOOKS, str(tmp_path / "ledger.json")]
    processes = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "abcd"]
    numbers = [int(line) for process in processes for line in process.communicate(timeout=240)[0].split()]
    assert sorted(numbers) == list(range(1, 13))


@pytest.mark.parametrize("text", ["{", "", '[{"fingerprint": "rows"}]', "[1]"])
def test_a_damaged_ledger_is_not_taken_for_an_empty_one(tmp_path, text):
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(ArtefactError, match="ledger of looks is damaged"):
        Ledger(tmp_path / "ledger.json").look("rows", 0.1, "again")


def test_a_split_is_known_by_its_rows_whatever_their_order():
    assert split_fingerprint(["a", "b"]) == split_fingerprint(["b", "a"])
    assert split_fingerprint(["a", "b"]) != split_fingerprint(["ab"])
    assert split_fingerprint(["a"]) != split_fingerprint(["a", "b"])
    with pytest.raises(DataError, match="twice"):
        split_fingerprint(["a", "a"])
