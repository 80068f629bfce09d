"""What every stage is given: the run's configuration, the artefact store, and somebody to report to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.progress import Bar, Reporter
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe

if TYPE_CHECKING:  # the configuration is made of the stages' own models, and actors do without MLflow
    from pipelines.config import RunConfig
    from pipelines.tracking import Tracking

Write = Callable[[Path, Path, Bar], None]


@dataclass
class Context:
    """One run as its stages see it; `seconds` and `cached` record what each of them took."""

    config: RunConfig
    store: ArtefactStore
    reporter: Reporter = field(default_factory=Reporter)
    seconds: dict[str, float] = field(default_factory=dict)
    cached: dict[str, bool] = field(default_factory=dict)
    tracking: Tracking | None = None

    @property
    def run_folder(self) -> Path:
        """Where this run leaves what people read: its results, its report, its bad rows."""
        return self.store.root / "runs" / self.config.name

    def build(self, recipe: Recipe, write: Write, *, unit: str = "rows", label: str | None = None) -> Artefact:
        """The artefact of `recipe`, from the store where it lies finished, else by `write(folder, scratch, bar)`."""
        name, started = label or recipe.stage, time.perf_counter()

        def run(folder: Path, scratch: Path) -> None:
            with self.reporter.bar(name, unit) as bar:
                write(folder, scratch, bar)

        artefact, cached = self.store.build(recipe, run)
        seconds = time.perf_counter() - started
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self.cached[name] = self.cached.get(name, True) and cached
        state = "already there" if cached else f"done in {seconds:.1f} s"
        self.reporter.say(f"[bold]{name:<9}[/bold] {state}  [dim]{artefact.fingerprint}[/dim]")
        return artefact
