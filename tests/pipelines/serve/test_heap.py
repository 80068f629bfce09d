"""What a replica has loaded is not looked through again while it answers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from pipelines.serve.heap import freeze, uncollected


class Node:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _thaw() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_is_loaded_is_out_of_sight_and_what_is_made_later_is_not() -> None:
    loaded, dropped = Node(), weakref.ref(Node())
    freeze()
    assert dropped() is None
    assert not any(each is loaded for each in gc.get_objects())
    later = weakref.ref(Node())
    gc.collect()
    assert later() is None


def test_the_collector_pauses_within_the_block_alone() -> None:
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
