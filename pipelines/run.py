"""The main job: every stage in turn, from rows to a registered bundle, each from the store where it is done already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pyarrow.parquet as pq
from rich.markup import escape

from kcm.learners.stream import matrix
from kcm.redact import redacted_values
from pipelines.cluster import connected
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.progress import Reporter
from pipelines.result import collect
from pipelines.stages.alignment import alignment
from pipelines.stages.evaluate import evaluate
from pipelines.stages.features import features, task_file
from pipelines.stages.outcomes import outcomes
from pipelines.stages.prompts import prompt_modes, prompts
from pipelines.stages.register import register
from pipelines.stages.tasks import load_sequence, tasks
from pipelines.stages.train import train
from pipelines.stages.tune import tune
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe, explained, write_json
from pipelines.store.lock import locked
from pipelines.tracking import Tracking
from pipelines.training.worker import TaskFiles, WalkPlan

STAGES = ("tasks", "features", "outcomes", "train", "tune", "evaluate", "register")


def run(config: RunConfig, until: str | None = None, reporter: Reporter | None = None) -> dict[str, Any]:
    """Run the stages up to `until`, or all of them, and give the result.

    A whole run writes `runs/<name>/result.json` below the storage path, whose path is the result's `result_path`.
    LockedError while another process runs the same name on the same storage path.
    """
    prompt_modes(config)  # refuses what cannot work, before anything is computed
    context = Context(config, ArtefactStore(config.storage_path), reporter or Reporter())
    folder = context.run_folder
    with explained(folder), locked(folder, f"the run {config.name!r}"), connected(config.cluster):
        folder.mkdir(parents=True, exist_ok=True)
        key = Recipe("run", 1, config.model_dump(mode="json", exclude={"cluster", "tracking", "serve"})).fingerprint
        context.tracking = Tracking.open(
            config.tracking,
            context.store.root,
            name=config.name,
            key=key,
            say=lambda line: context.reporter.say(escape(line)),
        )
        with closing(context.tracking):
            return _run(context, until)


def _run(context: Context, until: str | None) -> dict[str, Any]:
    done: dict[str, Artefact] = {}
    for stage, artefact in stages(context):
        done[stage] = artefact
        if stage == until:
            break
    result = collect(context, done)
    if "register" in done:
        file = context.run_folder / "result.json"
        result["result_path"] = str(file)
        write_json(file, redacted_values(result))
        if context.tracking:
            context.tracking.finish()
    return result


def stages(context: Context) -> Iterator[tuple[str, Artefact]]:
    """Each stage's name and artefact, computed when asked for."""
    sequence = alignment(context, tasks(context))
    config = context.config  # goes on with what has been fitted
    config.learner.build(config.seed).check(len(load_sequence(sequence).label_names))  # before hours of encoding
    yield "tasks", sequence
    encoded = features(context, sequence, config.encoder)
    yield "features", encoded
    answered = outcomes(context, sequence)
    yield "outcomes", answered
    plan, answer_names = walk_plan(config, sequence, encoded, answered)
    trained = train(context, plan, encoded, answered)
    yield "train", trained
    tuned = tune(context, plan, answer_names, (encoded, answered, trained))
    yield "tune", tuned
    deployed = tuned
    if prompt_modes(config):
        deployed = prompts(context, plan, answer_names, (sequence, encoded, answered, tuned))
        yield "prompts", deployed
    evaluated = evaluate(context, plan, answer_names, (encoded, answered, deployed))
    yield "evaluate", evaluated
    yield "register", register(context, plan, answer_names, (encoded, answered, deployed, evaluated))


def walk_plan(
    config: RunConfig, sequence: Artefact, encoded: Artefact, answered: Artefact
) -> tuple[WalkPlan, tuple[str, ...]]:
    """How the collaborators are trained on the files of finished stages, and what a large model may answer."""
    loaded = load_sequence(sequence)
    files = tuple(
        TaskFiles(task.name, task_file(encoded.folder, number), task_file(answered.folder, number))
        for number, task in enumerate(loaded.tasks)
    )
    first = pq.ParquetFile(files[0].features).read_row_group(0, columns=["features"])
    plan = WalkPlan(
        collaborators=config.collaborators,
        tasks=files,
        in_features=matrix(first["features"]).shape[1],
        num_labels=len(loaded.label_names),
        network=config.network,
        learner=config.learner,
        train=config.train,
        distill=config.distill,
        seed=config.seed,
    )
    return plan, loaded.answer_names
