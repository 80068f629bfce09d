"""The commands of the loop: `kcm promote`, `update`, `versions` and `rollback`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import Run
from kcm.errors import KcmError
from kcm.extras import load


def promote(
    config: Run,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="Number of a registered version, older or newer.")],
    approve: Annotated[
        bool,
        typer.Option("--approve", help="Only if it waits for approval."),
    ] = False,
) -> dict[str, Any]:
    """Make VERSION the champion, also of a running service.

    No request fails.
    """
    return load("jobs.work.loop:promote", "kcm promote")(config, version, approve)


def update(
    config: Run,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running, and take a turn on new traffic or an alarm.")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Certify the last challenger again, against people: the file of `kcm log export --audits` with its "
            "column label filled.",
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the list of labels to a new FILE, or read an edited one: added labels are learned by the next "
            "update, removed ones are withdrawn. No turn is taken.",
        ),
    ] = None,
) -> dict[str, Any]:
    """Train the served cascade on its traffic, and promote it.

    It is certified again first. The last line is the path of loop.json.
    """
    if watch + (labels is not None) + (classes is not None) > 1:
        raise KcmError("--watch, --labels and --classes cannot be combined", hint="Give one of them")
    return load("jobs.work.loop:update", "kcm update")(config, watch, labels, classes)


def versions(config: Run) -> dict[str, Any]:
    """List the champion, earlier champions and challengers.

    With lineage, promotion gates and windows of certificates.
    """
    return load("jobs.work.loop:versions", "kcm versions")(config)


def rollback(
    config: Run,
    version: Annotated[
        str | None,
        typer.Argument(metavar="[VERSION]", help="Number of an earlier version. Default: the previous champion."),
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Reason, for the record of the version.")
    ] = "rolled back by hand",
) -> dict[str, Any]:
    """Go back to an earlier champion without downtime.

    The current champion is never promoted automatically again.
    """
    return load("jobs.work.loop:rollback", "kcm rollback")(config, version, reason)
