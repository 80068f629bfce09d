"""`kcm doctor`: checks the cluster, the storage and the services of a run, one line per check."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import typer

from jobs.options import Run
from kcm.errors import KcmError


def doctor(config: Run) -> dict[str, Any]:
    """Check the needs of CONFIG on every node of its cluster, one line per check; a fault gives a non-zero exit."""
    from jobs.checks import checks, examine

    with ExitStack() as stack:
        result = examine(checks(config, stack), typer.echo)
    if result["faults"]:
        raise KcmError(f"checks failed for {config.name!r}: {', '.join(result['faults'])}", hint="See the lines above")
    return result
