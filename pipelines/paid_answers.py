"""The store of a run's paid answers."""

from __future__ import annotations

from kcm.large.response_cache import STORE_FILE, ResponseStore
from pipelines.config import RunConfig
from pipelines.serve.config import log_url
from pipelines.store.storage import Storage


def paid_answers(config: RunConfig) -> ResponseStore:
    """The store of a run's paid answers: the configured one, or a file of the storage (bucket: tables in the log)."""
    if config.paid_answers is not None:
        return ResponseStore.at(config.paid_answers)
    if Storage.at(config.storage_path).is_remote:
        return ResponseStore.in_log(log_url(config.serve, config.storage_folder))
    return ResponseStore.in_file(config.storage_folder / STORE_FILE)
