"""The champion changes by compare-and-swap, keeps its history, and never goes back to a rejected version by itself."""

from pathlib import Path

import pytest

from pipelines.registry.champion import Champion, Pointer
from pipelines.store.records import Control


def champion(name: str, **more: object) -> Champion:
    return Champion.model_validate(
        {"digest": name, "version": f"demo/{len(name)}", "bundle": "f" * 16, "promoted_at": "", "by": "run"} | more
    )


@pytest.fixture
def pointer(tmp_path: Path) -> Pointer:
    return Pointer(Control(tmp_path), "demo")


def test_who_did_not_see_the_newest_champion_changes_nothing(pointer: Pointer) -> None:
    pointer.swap(0, champion("a"))
    assert pointer.swap(1, champion("bb"))
    assert not pointer.swap(1, champion("ccc"))
    assert [each.digest for each in pointer.history()] == ["a", "bb"]


def test_rolled_back_version_and_its_watermark_are_rejected(pointer: Pointer) -> None:
    """Promise: a version that was rolled back is rejected and so is another from its watermark."""
    pointer.reject("a", "rolled back: two complaints", upto=700)
    assert pointer.rejected("a") == "rolled back: two complaints"
    assert pointer.rejected("b", upto=700) == "rolled back: two complaints"
    assert pointer.rejected("b", upto=701) is None
    assert pointer.rejected("b") is None


def test_undone_promotion_leaves_no_trace_in_the_history(pointer: Pointer) -> None:
    """Promise: a promotion that is taken back leaves no trace in the history."""
    before = pointer.swap(0, champion("a"))
    promotion = pointer.swap(1, champion("bb"))
    assert before is not None
    assert promotion is not None
    assert pointer.take_back(promotion, before)
    current = pointer.current()
    assert current is not None
    assert (current.number, current.champion.digest, current.record) == (1, "a", 3)
    assert [each.digest for each in pointer.history()] == ["a"]
    assert not pointer.take_back(promotion, before)  # the pointer has moved on
    third = pointer.swap(1, champion("ccc"))
    assert third is not None
    assert [each.digest for each in pointer.history()] == ["a", "ccc"]


def test_applications_on_one_storage_have_champions_of_their_own(tmp_path: Path) -> None:
    one, other = (Pointer(Control(tmp_path), name) for name in ("one", "other"))
    one.swap(0, champion("a"))
    assert other.current() is None


def test_the_first_reason_stays(pointer: Pointer) -> None:
    pointer.reject("a", "first")
    pointer.reject("a", "second")
    assert [each["reason"] for each in pointer.rejections()] == ["first"]
