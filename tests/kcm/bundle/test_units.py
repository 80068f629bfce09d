"""A set of digests is the set that Python has of them, whatever their bytes."""

from __future__ import annotations

import hashlib

import pytest

from kcm.bundle.models import UnitDigests

DIGESTS = frozenset(
    {hashlib.sha256(bytes([number])).hexdigest()[:32] for number in range(200)}
    | {"00" * 16, "ff" * 16, "ab" * 15 + "00", "00" * 15 + "01"}
)


def test_it_is_the_set_of_what_it_was_given() -> None:
    found = UnitDigests.of([*DIGESTS, *DIGESTS])
    assert found == DIGESTS
    assert found == DIGESTS
    assert len(found) == len(DIGESTS)
    assert list(found) == sorted(DIGESTS)
    assert UnitDigests(found.packed) == found


@pytest.mark.parametrize("other", ["0" * 31 + "1", "ab" * 16, "ab" * 15, "a name", "", 7])
def test_what_it_was_not_given_is_not_in_it(other: object) -> None:
    found = UnitDigests.of(DIGESTS - {"00" * 15 + "01"})
    assert other not in found
    assert "00" * 16 in found
    assert "ab" * 15 + "00" in found


def test_it_may_be_empty() -> None:
    assert UnitDigests.of([]) == frozenset()
    assert "00" * 16 not in UnitDigests.of([])
