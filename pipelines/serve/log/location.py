"""Where the decisions of a run's service are logged, and how far its log reaches."""

from __future__ import annotations

from pathlib import Path

from pipelines.serve.config import ServeConfig

LOG_FILE = "feedback.db"  # in the storage, where no other log is configured


def log_url(serve: ServeConfig, storage_path: Path) -> str:
    """The URL of the log of a run that keeps its artefacts in `storage_path`."""
    return serve.feedback.url or f"sqlite:///{storage_path.absolute() / LOG_FILE}"


def log_watermark(serve: ServeConfig, storage_path: Path, application: str) -> int:
    """The number of the last decision that a window of an application may end with; 0 where nothing is logged."""
    from sqlalchemy.engine import make_url  # takes its time to import; most only want to know where the log lies

    from pipelines.serve.log.reading.window import LogReader

    url = log_url(serve, storage_path)
    database = make_url(url)
    if database.get_backend_name() == "sqlite" and not Path(database.database or "").exists():
        return 0
    with LogReader(url) as log:
        return log.watermark(application)
