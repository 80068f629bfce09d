"""The context of a stage: store, paths, cluster and reporter."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.cluster.config import ClusterConfig
from pipelines.progress import Bar, Reporter
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe
from pipelines.store.storage import Storage

if TYPE_CHECKING:  # actors need no databases and no MLflow
    from kcm.large.response_cache import ResponseStore
    from pipelines.tracking.tracking import Tracking


@dataclass
class Context:
    """One run for its stages; `seconds` and `cached` record each stage. Nothing here changes a result.

    `connect` starts or joins the cluster. It is called before the first computation, so a run whose artefacts all exist
    starts no cluster.
    """

    name: str
    store: ArtefactStore
    assets_path: Path
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    reporter: Reporter = field(default_factory=Reporter)
    connect: Callable[[], object] = lambda: None
    seconds: dict[str, float] = field(default_factory=dict)
    cached: dict[str, bool] = field(default_factory=dict)
    tracking: Tracking | None = None
    responses: ResponseStore | None = None  # store of paid answers; None: a file of the storage
    promote: bool | None = None  # whether the run promotes its version; None: if nothing speaks against it
    promotion: dict[str, Any] | None = None  # outcome of the version that the run registered

    @property
    def run_folder(self) -> Path:
        """Folder with the run's results for people: result, report, bad rows; it is kept when the run ends."""
        return self.store.root / "runs" / self.name

    def build(
        self,
        recipe: Recipe,
        write: Callable[[Attempt], None],
        *,
        unit: str = "rows",
        label: str | None = None,
        starts_cluster: Callable[[], bool] = lambda: True,
    ) -> Artefact:
        """The artefact of `recipe`: finished in the store, or written by a new attempt."""
        name, started = label or recipe.stage, time.perf_counter()

        def attempt(folder: Path, scratch: Path) -> None:
            if starts_cluster():
                self.connect()
            with self.reporter.bar(name, unit) as bar:
                write(Attempt(self, recipe.fingerprint, folder, scratch, bar))

        artefact, cached = self.store.build(recipe, attempt)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started  # seconds of all its parts
        self.cached[name] = self.cached.get(name, True) and cached
        part = f"its {recipe.stage} " if label and label != recipe.stage else ""
        state = part + ("already there" if cached else f"done in {self.seconds[name]:.1f} s")
        self.reporter.say(f"[bold]{name:<9}[/bold] {state}  [dim]{artefact.fingerprint}[/dim]")
        return artefact


@dataclass(frozen=True)
class Attempt:
    """One attempt at an artefact: the folder to fill, and a scratch folder, which the next attempt reuses.

    For a storage in a bucket both folders are on this node. Files for the next attempt, and files that other nodes
    write, must be kept with `storage.keep`.
    """

    context: Context
    fingerprint: str
    folder: Path
    scratch: Path
    bar: Bar

    def take(self, paths: Mapping[str, Path]) -> None:
        """Make files of the storage, by their new names, files of the attempt's folder.

        The originals stay until the artefact is finished, so a kill in between costs nothing.
        """
        self.context.store.storage.place(paths, self.folder)

    @property
    def storage(self) -> Storage:
        """The scratch folder as a part of the storage."""
        return self.context.store.storage.below(self.scratch)
