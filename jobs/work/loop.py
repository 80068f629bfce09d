"""What the commands of the loop do, and what they print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from jobs.views.loop import turn_view, versions_view
from jobs.views.table import result_console
from jobs.work import turns
from kcm.inputs.visible import shown
from pipelines.config import RunConfig


def promote(config: RunConfig, version: str, approve: bool) -> dict[str, Any]:
    """Make a version the champion, or approve one that waits."""
    if approve:
        result = turns.approve(config, version)
        outcome = "is the champion" if result["promoted"] else f"is not promoted: {result['reason']}"
    else:
        result = turns.promote(config, version)
        outcome = f"is the champion{' and is served' if result['served'] else '; nothing is being served'}"
    typer.echo(f"{result['version']} {outcome}")
    return result


def update(config: RunConfig, watch: bool, labels: Path | None, classes: Path | None) -> dict[str, Any]:
    """Take one turn of the loop, or with `watch` turn after turn; with `classes`, write or read the list of labels."""
    if watch:
        turns.watch(config, lambda line: typer.echo(line, err=True))
        return {}
    if classes is not None:
        result = turns.name_classes(config, classes)
        named = ", ".join(map(shown, result["named"])) or "none"
        done = "written: add labels, a line each, and give it again" if result["written"] else "read"
        typer.echo(f"{classes} is {done}; named so far: {named}")
        return result
    result = turns.update(config, labels)
    result_console().print(turn_view(result))
    typer.echo(result["result_path"])
    return result


def versions(config: RunConfig) -> dict[str, Any]:
    """Print and return the versions."""
    result = turns.versions(config)
    result_console().print(versions_view(result))
    return result


def rollback(config: RunConfig, version: str | None, reason: str) -> dict[str, Any]:
    """Go back to an earlier champion."""
    result = turns.rollback(config, version, reason)
    where = "and is served" if result["served"] else "again; nothing is being served"
    typer.echo(f"{result['rolled_back']} is rolled back: {result['version']} is the champion {where}")
    return result
