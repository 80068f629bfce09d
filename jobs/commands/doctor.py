"""`kcm doctor`: checks the cluster, the storage and the services of a run, one line per check."""

from __future__ import annotations

from typing import Any

from jobs.options import Run
from kcm.errors import KcmError
from kcm.extras import load


def doctor(config: Run) -> dict[str, Any]:
    """Check the needs of CONFIG on every node of its cluster.

    One line per check; a fault gives a non-zero exit.
    """
    result: dict[str, Any] = load("jobs.work.doctor:report", "kcm doctor")(config)
    if result["faults"]:
        raise KcmError(f"checks failed for {config.name!r}: {', '.join(result['faults'])}", hint="See the lines above")
    return result
