"""How many threads a computation may take: those of the CPUs that this process was given."""

from __future__ import annotations

import os


def num_threads() -> int:
    """`OMP_NUM_THREADS` where it is set, as Ray does from the CPUs of an actor or a replica; else the usable cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else len(os.sched_getaffinity(0))
