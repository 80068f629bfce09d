"""The garbage collector beside an event loop."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Pause the collector within the block, for imports: it would look at ever more modules, of which none is garbage.

    Of the two seconds that the imports of a door take, it takes a quarter.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def freeze() -> None:
    """Take what is loaded by now out of the collector's sight, once its garbage is gone.

    A full collection looks at every object of a process, nothing else runs meanwhile, and it comes when it likes:
    over the modules and models of a replica it takes a quarter of a second. What is made later is collected as ever.
    """
    gc.collect()
    gc.freeze()
