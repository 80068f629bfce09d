"""Where a search starts: at what the last search of the same space found best.

Two searches are alike when everything agrees but the seed, the revision of the rows and where the work runs. What was
best then is evaluated anew, and first: the rows may have changed, so that old objectives are hearsay.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.store.artefact import Artefact, ArtefactStore

if TYPE_CHECKING:  # the configuration is made of the stages' own models
    from pipelines.config import RunConfig

SEARCH, TRIALS = "search.json", "trials.json"

Trial = Mapping[str, Any]

_MAY_DIFFER: dict[str, Any] = {
    **dict.fromkeys(("name", "storage_path", "assets_path", "seed", "collaborators"), True),
    **dict.fromkeys(("prompts", "serve", "tracking", "cluster"), True),
    "tasks": {"source": {"revision": True}, "order_seed": True},
    "tune": {"num_trials": True, "prompt_modes": True, "warm_start": True},
}


def space_of(config: RunConfig) -> str:
    """A fingerprint of all that two searches must share for one to start from the other."""
    shared = json.dumps(config.model_dump(mode="json", exclude=_MAY_DIFFER), sort_keys=True)
    return hashlib.sha256(shared.encode()).hexdigest()[:16]


def last_search(store: ArtefactStore, space: str) -> Artefact | None:
    """The newest finished search of this space."""
    for artefact in store.finished("tune"):
        file = artefact.folder / SEARCH
        if file.exists() and json.loads(file.read_text(encoding="utf-8"))["space"] == space:
            return artefact
    return None


def first_points(earlier: Artefact, collaborator: str, limit: int) -> list[dict[str, Any]]:
    """Up to `limit` points of a finished search, each once: the best one first, then the rest of its Pareto front."""
    trials = json.loads((earlier.folder / TRIALS).read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = []
    for trial in best_first([trial for trial in trials if trial["collaborator"] == collaborator]):
        if trial["params"] not in found and (trial["pareto"] or not found):
            found.append(trial["params"])
    return found[:limit]


def best_first(trials: Sequence[Trial]) -> list[Trial]:
    """Trials from the one of which a certificate should leave most."""
    return sorted(trials, key=lambda trial: (trial["promised"], trial["calls_saved"], trial["area"]), reverse=True)
