"""What `kcm log` does: counts of a log of decisions, the log as a file, deletion from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from jobs.settings import ServiceSettings
from jobs.views.loop import stats_view
from jobs.views.table import result_console
from kcm.errors import KcmError
from pipelines.config import RunConfig
from pipelines.loop.label_file import write_audits
from pipelines.serve.log.database import require_log
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.window import LogReader

TIMEOUT_S = 30.0


def stats(config: RunConfig) -> dict[str, Any]:
    """Print and return the counts of the log."""
    with LogReader(*_log_of(config)) as log:
        watermark = log.watermark()
        result = {"watermark": watermark, "missing": log.gaps(0, watermark)} | log.stats()
        result["novelty"] = {version: log.novelty(version) for version in result["versions"]}
    result_console().print(stats_view(result))
    return result


def export(config: RunConfig, output: Path, after: int, upto: int | None, audits: bool = False) -> dict[str, Any]:
    """Write the decisions after `after`, up to and including `upto`; or the `audits` among them, for people."""
    url, application = _log_of(config)
    with LogReader(url, application) as log:
        end = log.watermark() if upto is None else min(upto, log.watermark())
        number = write_audits(log.window(after, end, 1.0), output) if audits else log.export(output, after, end)
    typer.echo(str(output))
    return {"application": application, "decisions": number, "after": after, "upto": end, "file": str(output)}


def forget(config: RunConfig, caller: str | None, request: str | None) -> dict[str, Any]:
    """Delete the content of a caller's or a request's items. Raises KcmError if the log has none."""
    url, application = _log_of(config)
    require_log(url)
    subject = f"caller {caller!r}" if caller is not None else f"request {request!r}"
    with DecisionLog(url, TIMEOUT_S, application) as log:
        counts = log.forget_request(*_parsed(str(request))) if caller is None else log.forget_caller(caller)
    if not counts.num_items:
        raise KcmError(
            f"the log has no items of {subject}, or they are already forgotten",
            where=application,
            hint="New answers appear in the log after a second",
        )
    typer.echo(f"forgot {counts.num_items} items of {subject}")
    typer.echo("`kcm update` trains without them; earlier versions keep what they learned")
    return {"items": counts.num_items, "units": sorted(counts.units)}


def _log_of(config: RunConfig) -> tuple[str, str]:
    """The URL of the log of a run's service, and the application's name in it."""
    serve: Any = ServiceSettings.of(config).serve  # a service has a log and a name
    return serve.feedback.url, serve.application


def _parsed(request: str) -> tuple[str, int | None]:
    """The id of a request, and the position of an item if one is named."""
    request_id, slash, item = request.rpartition("/")
    return (request_id, int(item)) if slash and item.isdecimal() else (request, None)
