"""The main job: the list of stages, from rows to a registered bundle; finished artefacts are reused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from rich.markup import escape

from kcm import extras
from kcm.encoders.precomputed import vector_columns
from kcm.redact import redacted_values
from kcm.tasks.preparation.earlier import KnownRowsError
from pipelines.cluster.config import require_room, starts_local
from pipelines.config import OPERATIONAL, PLACES, RunConfig
from pipelines.context import Context
from pipelines.paid_answers import paid_answers
from pipelines.progress import Reporter
from pipelines.result import collect
from pipelines.stages.evaluate import Evaluate, Uncertified
from pipelines.stages.features import Features
from pipelines.stages.outcomes import Outcomes
from pipelines.stages.parent import Parent
from pipelines.stages.register import Register
from pipelines.stages.stage import Stage, run_stages
from pipelines.stages.tasks import Tasks
from pipelines.stages.train import Train
from pipelines.stages.tune import Tune
from pipelines.store.artefact import ArtefactStore, Recipe, storage_errors, write_json
from pipelines.store.files import StorageError
from pipelines.store.garbage import CLEANING
from pipelines.store.lease import leased, refuse_while_held
from pipelines.tracking.tracking import Tracking

RESULT = "result.json"
SEARCH: tuple[type[Stage], ...] = (Tasks, Features, Outcomes, Train, Tune)
STAGES: tuple[type[Stage], ...] = (*SEARCH, Evaluate, Register)


def run(
    config: RunConfig,
    until: str | None = None,
    reporter: Reporter | None = None,
    promote: bool | None = None,
    append: str | None = None,
    parent: str | None = None,
) -> dict[str, Any]:
    """Run the stages up to `until`, or all of them; returns the result.

    A whole run writes `runs/<name>/result.json` below the storage path; the result's `result_path` names it.
    `promote` decides whether its version becomes the champion. None: the first version that is certified to save
    something becomes the champion, later versions only if they are not worse (`Register.publish`).
    `append` is a table whose rows are the next task of the sequence of the version `parent`, by default of the newest.
    A table whose rows are all in the sequence changes nothing: the result is the last one.
    Raises LockedError while another process runs the same name on the same storage path.
    """
    continued = None
    if append is not None:
        continued = Parent.newest(config.name, ArtefactStore(config.storage_path), parent)
        config = config.appended(append)
    stages = stages_of(config, continued)
    # A faulty file is reported before a cluster starts, and leaves nothing. An existing cluster reads the file once.
    if config.tasks.source.opens_quickly and starts_local(config.cluster):
        config.tasks.source.build(config.assets_path, vector_columns(config.encoder))
    section = config.model_dump(mode="json", exclude=set(OPERATIONAL))
    key = Recipe("run", 1, section, (continued.artefact,) if continued else ()).fingerprint
    with run_context(config, stages, reporter) as context, recorded(config, context, key):
        context.promote = promote
        try:
            return _run(config, stages, context, until)
        except KnownRowsError as error:
            path = context.run_folder / RESULT
            if continued is None or not path.is_file():
                raise
            context.reporter.say(f"{escape(str(error))}: version {continued.version} has learned them")
            return dict(json.loads(path.read_text(encoding="utf-8")))


def _run(config: RunConfig, stages: list[Stage], context: Context, until: str | None) -> dict[str, Any]:
    """The result of the stages up to `until`, which is written if they are all."""
    names = [stage.stage for stage in stages]
    artefacts = dict(run_stages(stages[: names.index(until) + 1] if until else stages, context))
    result = collect(config, context, artefacts)
    if "register" in artefacts:
        path = context.run_folder / RESULT
        result["result_path"] = context.store.storage.where(path)
        write_json(path, redacted_values(result))
    return result


@contextmanager
def recorded(config: RunConfig, context: Context, key: str) -> Iterator[None]:
    """Record the block as the run `key` of MLflow, with the keys of the configuration that change a result."""
    params = redacted_values(config.model_dump(mode="json", exclude={*OPERATIONAL, *PLACES}))
    tracking = Tracking.running(config.tracking, context.store.root, name=config.name, key=key, params=params)
    with tracking as context.tracking:
        yield


def stages_of(config: RunConfig, parent: Parent | None = None) -> list[Stage]:
    """The stages of a run; with `update.first_threshold` its rows certify nothing. `parent`: as in `Stage`."""
    uncertified = config.first_threshold is not None
    stages = (Uncertified if uncertified and stage is Evaluate else stage for stage in STAGES)
    return [stage.of(config, parent=parent) for stage in stages]


def context_of(config: RunConfig, store: ArtefactStore, reporter: Reporter | None) -> Context:
    """The context of a run."""
    context = Context(config.name, store, config.assets_path, config.cluster, reporter or Reporter())
    if store.storage.is_remote or config.paid_answers is not None:
        context.responses = paid_answers(config)
    return context


@contextmanager
def run_context(config: RunConfig, stages: list[Stage], reporter: Reporter | None = None) -> Iterator[Context]:
    """The context of a run's stages within the block, with the run's lock, and a cluster once one is needed.

    Before anything is computed, all stages are checked, and so is the size of a local cluster.
    """
    for stage in stages:
        stage.check()
    require_room(config.cluster)
    store = ArtefactStore(config.storage_path)
    context = context_of(config, store, reporter)
    folder = context.run_folder
    lease = leased(store.control, f"leases/runs/{config.name}", f"the run {config.name!r}")
    with storage_errors(folder), lease, ExitStack() as stack:

        @cache
        def connect() -> None:
            stack.enter_context(extras.load("pipelines.cluster.connection:connected", "a cluster")(config.cluster))
            extras.load("pipelines.nodes:require_nodes", "a cluster")(store.storage.files)

        context.connect = connect
        refuse_while_held(store.control, CLEANING, "the storage is being cleaned")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield context
        except BaseException:
            with suppress(StorageError):  # raise the error that stopped the run, not a consequence of it
                _keep_results(store, folder)
            raise
        _keep_results(store, folder)


def _keep_results(store: ArtefactStore, folder: Path) -> None:
    """Add the files of a run's folder to the storage.

    Folders in it are skipped: the folder of a running service holds a token.
    """
    for path in folder.iterdir():
        if path.is_file():
            store.storage.keep(path)
