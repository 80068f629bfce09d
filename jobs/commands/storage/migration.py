"""`kcm migrate`: what an earlier version of the package left in a storage, brought to today's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kcm.large.response_cache import ResponseCache, ResponseStore
from pipelines.batch.asking import RESPONSES_FILE
from pipelines.serve.log.database import Database
from pipelines.serve.log.location import LOG_FILE
from pipelines.store.migrate import migrate_artefacts
from pipelines.store.storage import Storage

TIMEOUT_S = 30.0


def migrate(storage: str | Path) -> dict[str, Any]:
    """Migrate a storage; what became of its artefacts, and whether paid answers and a log are there and current.

    Nothing is computed, and a second call changes nothing. Raises ArtefactError for what is no storage, or is damaged.
    """
    result: dict[str, Any] = migrate_artefacts(storage).as_json()
    folder = Storage.at(storage).root  # a bucket's holds neither
    paid, log = folder / RESPONSES_FILE, folder / LOG_FILE
    if paid.exists():
        ResponseCache(ResponseStore.in_file(paid), "").spent()  # raises where it cannot be read
        result["paid_answers"] = "current"
    if log.exists():
        database = Database(f"sqlite:///{log}", TIMEOUT_S)
        database.open()
        database.close()
        result["log"] = "current"
    return result
