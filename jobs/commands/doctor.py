"""`kcm doctor`: whether the cluster, the storage and the services of a run are fit for it, a line for each check."""

from __future__ import annotations

from typing import Any

from jobs.options import Run
from kcm.errors import KcmError
from kcm.extras import load


def doctor(config: Run) -> dict[str, Any]:
    """Check what CONFIG needs, on every node of its cluster: a line for each check; a fault gives a non-zero exit."""
    result: dict[str, Any] = load("jobs.checks:report", "kcm doctor")(config)
    if result["faults"]:
        raise KcmError(f"not fit for {config.name!r}: {', '.join(result['faults'])}", hint="The lines above say why")
    return result
