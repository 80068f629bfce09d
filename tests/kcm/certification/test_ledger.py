"""The ledger: all looks at one question share one delta, across seeds, subsets and processes."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kcm.certification.ledger import (
    CONTENT,
    GROUP,
    Ledger,
    Look,
    Units,
    look_delta,
    question_delta,
    unit_hashes,
)
from kcm.errors import ArtefactError


def rows(start: int, stop: int) -> np.ndarray:
    return unit_hashes(f"row {number}" for number in range(start, stop))


def take(ledger: Ledger, units: Units, digest: str) -> Look:
    return ledger.look(units, delta=0.1, digest=digest, purpose="test")


@pytest.mark.parametrize("share", [look_delta, question_delta])
def test_all_looks_ever_spend_delta_together(share) -> None:
    """The shares of all looks sum to delta, and no look spends more than the one before it."""
    shares = [share(0.1, number) for number in range(1, 20_000)]
    assert sum(shares) == pytest.approx(0.1, rel=1e-3)
    assert math.fsum(shares) <= 0.1 * (1 + 1e-12)
    assert all(late <= early for early, late in itertools.pairwise(shares))


def test_a_lineage_spends_six_over_pi_squared() -> None:
    """Attempt v of a lineage spends 6 delta / (pi^2 v^2)."""
    assert look_delta(0.1, 1) == pytest.approx(0.6 / math.pi**2)
    assert look_delta(0.1, 2) == pytest.approx(look_delta(0.1, 1) / 4)


def test_the_identical_look_is_free(tmp_path: Path) -> None:
    """The same digest at the same units and delta is the same look; everything else is the next one."""
    ledger = Ledger(tmp_path)
    first = take(ledger, rows(0, 100), "seed 0")
    assert take(ledger, rows(0, 100), "seed 0") == first
    assert take(ledger, rows(0, 100), "seed 1").number == 2
    assert take(ledger, rows(0, 99), "seed 0").number == 3
    assert ledger.look(rows(0, 100), delta=0.2, digest="seed 0", purpose="test").number == 4
    assert [look.spend for look in ledger.looks()][:3] == [question_delta(0.1, v) for v in (1, 2, 3)]


def test_subsets_and_supersets_are_one_question(tmp_path: Path) -> None:
    """Parts of a table, and tables that contain it, are charged with it."""
    ledger = Ledger(tmp_path)
    tables = [rows(0, 100), rows(0, 50), rows(50, 100), rows(0, 5000), rows(4000, 4010)]
    assert [take(ledger, table, "look").number for table in tables] == [1, 2, 3, 4, 5]


def test_a_tenth_of_the_smaller_side_joins(tmp_path: Path) -> None:
    """Overlap is measured on the smaller side: 10 of 100 units join, 9 do not."""
    ledger = Ledger(tmp_path)
    take(ledger, rows(0, 1000), "first")
    assert ledger.preview(rows(991, 1091), delta=0.1, digest="nine").number == 1
    assert ledger.preview(rows(990, 1090), delta=0.1, digest="ten").number == 2


def test_many_small_overlaps_do_not_slip_through(tmp_path: Path) -> None:
    """Overlap is measured against the union of a question's units, which grows with every look."""
    ledger = Ledger(tmp_path)
    take(ledger, rows(0, 1000), "first")
    take(ledger, rows(900, 1900), "second")
    mixed = np.unique(np.concatenate([rows(0, 60), rows(1840, 1900), rows(5000, 5880)]))
    assert take(ledger, mixed, "six and six percent").number == 3


def test_a_look_at_two_questions_merges_them(tmp_path: Path) -> None:
    """Its number is the sum of their looks + 1, and both count as one question from then on."""
    ledger = Ledger(tmp_path)
    for digest in ("a", "b"):
        take(ledger, rows(0, 100), digest)
    assert take(ledger, rows(100, 200), "c").number == 1
    both = take(ledger, rows(50, 150), "d")
    assert (both.number, len(both.merged)) == (4, 1)
    assert take(ledger, rows(190, 200), "e").number == 5
    assert take(ledger, rows(0, 10), "f").number == 6


def test_a_group_column_named_later_is_no_new_table(tmp_path: Path) -> None:
    """Contents are compared with contents, whatever else a look names."""
    ledger = Ledger(tmp_path)
    take(ledger, rows(0, 100), "contents")
    groups = unit_hashes(f"group {number}" for number in range(10))
    assert take(ledger, {CONTENT: rows(0, 100), GROUP: groups}, "grouped").number == 2
    assert take(ledger, {CONTENT: rows(500, 600), GROUP: groups}, "other rows of the groups").number == 3


def test_a_look_without_units_belongs_to_the_whole_ledger(tmp_path: Path) -> None:
    """Arrays without names share delta with all looks before and after them."""
    ledger = Ledger(tmp_path)
    take(ledger, rows(0, 100), "a")
    take(ledger, rows(500, 600), "b")
    assert take(ledger, None, "arrays").number == 3
    assert take(ledger, rows(800, 900), "c").number == 4


def test_a_preview_writes_nothing(tmp_path: Path) -> None:
    """A preview says what a look would cost, and costs nothing itself."""
    ledger = Ledger(tmp_path / "ledger")
    for _ in range(2):
        look = ledger.preview(rows(0, 100), delta=0.1, digest="seed 0")
        assert (look.number, look.spend) == (1, question_delta(0.1, 1))
    assert not (tmp_path / "ledger").exists()
    assert "First look at these rows" in look.sentence
    assert "later looks share 20%" in look.sentence


@pytest.mark.parametrize(
    "grows", [[True] * 40, [False] * 40, [True, False] * 20, [False, True] * 20, [True] * 3 + [False] * 37]
)
def test_looks_of_any_kind_spend_at_most_delta(tmp_path: Path, grows: list[bool]) -> None:
    """A question that grows keeps more for later looks, and no mixture of both kinds exceeds delta."""
    ledger = Ledger(tmp_path)
    looks = [
        ledger.look(rows(0, 100 + number), delta=0.1, digest=str(number), purpose="", grows=growing)
        for number, growing in enumerate(grows)
    ]
    assert [look.number for look in looks] == list(range(1, 41))
    assert sum(look.spend for look in looks) <= 0.1
    if all(grows):
        assert looks[1].spend / 0.1 == pytest.approx(0.152, abs=1e-3)
        assert looks[0].next_spend == looks[1].spend


_THREE_LOOKS = """
import sys, pathlib
from kcm.certification.ledger import Ledger, unit_hashes
for number in range(3):
    units = unit_hashes(["a", "b"])
    ledger = Ledger(pathlib.Path(sys.argv[1]))
    print(ledger.look(units, delta=0.1, digest=f"{sys.argv[2]} {number}", purpose="test").number)
"""


def test_looks_of_several_processes_are_all_counted(tmp_path: Path) -> None:
    """Two looks at once get two numbers."""
    command = [sys.executable, "-c", _THREE_LOOKS, str(tmp_path / "ledger")]
    processes = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in "abcd"]
    numbers = [int(line) for process in processes for line in process.communicate(timeout=240)[0].split()]
    assert sorted(numbers) == list(range(1, 13))


def written(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        *(
            ("looks/*2", written(text), r"looks/000000000002 cannot be read.*Restore it")
            for text in ("{", "", '{"question": "rows"}', "[1]", "1")
        ),
        ("looks/*2", Path.unlink, "looks are missing"),
        ("units/*", Path.unlink, "units/.* is missing"),
        ("units/*", written("12345678"), "units/.* was changed"),
    ],
)
def test_a_damaged_ledger_is_refused(tmp_path: Path, file: str, change: Callable[[Path], object], message: str) -> None:
    """A look that cannot be read is not taken for none; a gap in the numbers and changed units are damage."""
    ledger = Ledger(tmp_path)
    for digest in "abc":
        take(ledger, rows(0, 10), digest)
    (path,) = tmp_path.glob(file)
    change(path)
    with pytest.raises(ArtefactError, match=f"damaged: {message}"):
        take(ledger, rows(0, 9), "d")


def test_a_file_is_no_ledger(tmp_path: Path) -> None:
    """A ledger is a folder: the error names the path and the fix."""
    (tmp_path / "ledger.json").write_text("[]")
    with pytest.raises(ArtefactError, match=r"cannot write the ledger.*Name a new folder"):
        take(Ledger(tmp_path / "ledger.json"), rows(0, 9), "a")
