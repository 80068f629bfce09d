"""`kcm compare`: whether a certificate counts for the runtimes in which a version is served."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from jobs.commands.serving.serving import Site
from jobs.models import served_model
from kcm.bundle.bundle import Bundle
from kcm.bundle.computed import keep_comparison
from kcm.bundle.models import bundle_digest
from kcm.errors import ArtefactError
from pipelines.cluster.connection import connected
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.progress import Reporter
from pipelines.serve.runtimes import as_served, devices_of
from pipelines.stages.compare import compare
from pipelines.stages.register import BundleArtefact, Register
from pipelines.store.artefact import ArtefactStore, storage_errors


def compare_served(config: RunConfig, version: str | None = None, reporter: Reporter | None = None) -> dict[str, Any]:
    """Compare a registered version, by default the champion, as `kcm serve` computes it with what was certified.

    What came out is left beside the copy of the bundle that is served, and in the storage. Nothing is computed where
    the version is served as it was certified. Raises ArtefactError where the storage does not hold the version's
    artefact, KcmError for one whose certify rows cannot be replayed.
    """
    model = config.tracking.model_of(config.name)
    release = served_model(config, version and f"{model}/{version.rpartition('/')[2]}")
    serve = Site.of(config).serve
    served, devices = as_served(Bundle.read(release.bundle), serve), devices_of(serve)
    computed_by = served.computed_by(*devices)
    result = {
        "version": release.version,
        "certified_by": served.certified_by and served.certified_by.model_dump(),
        "served_by": computed_by.model_dump(),
    }
    if served.certified_by in (None, computed_by):
        return result | {"num_rows": 0, "num_different": 0, "void": None}
    store, cluster = ArtefactStore(config.storage_path), config.cluster
    if "cuda" in devices:
        cluster = cluster.model_copy(update={"use_gpu": True})
    with storage_errors(store.root), ExitStack() as stack:
        context = Context(config.name, store, config.assets_path, cluster, reporter or Reporter())
        context.connect = lambda: stack.enter_context(connected(cluster))
        comparison = compare(_artefact(store, served.digest), served, devices, context)
        keep_comparison(release.bundle, served.digest, comparison)
    counts = comparison.model_dump(include={"num_rows", "num_different"})
    return result | counts | {"void": served.void_on(release.bundle, *devices)}


def _artefact(store: ArtefactStore, digest: str) -> BundleArtefact:
    """The artefact whose bundle has this digest."""
    for each in store.finished(Register.stage):
        found = each.as_a(BundleArtefact)
        if bundle_digest(found.bundle) == digest:
            return found
    raise ArtefactError(
        f"no bundle {digest[:12]} here, so that its certify rows are not known",
        where=str(store.root),
        hint="Name the storage of the run that made it",
    )
