"""`kcm doctor`: whether the cluster, the storage and the services of a run are fit for it, a line for each check."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import typer

from jobs.options import Run
from kcm.errors import KcmError


def doctor(config: Run) -> dict[str, Any]:
    """Check what CONFIG needs, on every node of its cluster: a line for each check; a fault gives a non-zero exit."""
    from jobs.checks import checks, examine

    with ExitStack() as stack:
        result = examine(checks(config, stack), typer.echo)
    if result["faults"]:
        raise KcmError(f"not fit for {config.name!r}: {', '.join(result['faults'])}", hint="The lines above say why")
    return result
