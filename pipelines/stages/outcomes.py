"""Stage `outcomes`: what the large model says of every row, asked once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.inputs.content import Content
from kcm.inputs.labels import UNLABELLED
from kcm.large import NO_PROMPT, Item, LargeConfig
from pipelines.batch.asking import Asked, ask, written_prompt
from pipelines.context import Context
from pipelines.progress import Bar
from pipelines.stages.features import SECONDS, feature_matrix, features, read_features, task_file
from pipelines.stages.tasks import load_sequence
from pipelines.store.artefact import Artefact, Recipe, write_json
from pipelines.store.outcome_file import Outcomes

VERSION = 1
HEAD = "large_head.safetensors"
IDENTITY = "large.json"


def outcomes(context: Context, tasks: Artefact) -> Artefact:
    """One Parquet file per task, its rows as in the features: prompt, label, probabilities, cost, error.

    Labels count in the label list; the number after its last stands for none-of-these.
    """
    large = context.config.large
    if large.fits_on_train:
        return _classify(context, tasks, large)
    if not large.reads:
        return _look_up(context, tasks, large)
    return _ask(context, tasks, large)


def _classify(context: Context, tasks: Artefact, large: LargeConfig) -> Artefact:
    """A linear head on the large encoder's features, fitted on the labelled train rows of all tasks.

    These carry out-of-fold probabilities: in-sample ones would teach the small model a certainty that is not there on
    new rows.
    """
    embedded = features(context, tasks, large.backbone, label="outcomes")
    section = {"large": large.model_dump(mode="json", exclude=set(large.operational)), "seed": context.config.seed}

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        sequence = load_sequence(tasks)
        tables = [read_features(embedded.folder, number) for number in range(len(sequence.tasks))]
        everything = pa.concat_tables(tables)
        inputs_ND, label_N = feature_matrix(everything), everything["label"].to_numpy()
        is_fitted = (np.asarray(everything["split"]) == "train") & (label_N != UNLABELLED)
        # A row without a group stands alone: its id is its group.
        groups = pc.coalesce(everything["group"], everything["id"]).filter(pa.array(is_fitted)).to_pylist()
        bar.update(0, 1)
        num_classes = len(sequence.label_names)
        fit = large.fit(inputs_ND[is_fitted], label_N[is_fitted], groups, num_classes, context.config.seed)
        bar.update(1, 1)
        probabilities = fit.head.probabilities(inputs_ND)
        probabilities[is_fitted] = fit.out_of_fold_NC
        fit.head.save(folder / HEAD)
        answered = Outcomes(
            label_N=probabilities.argmax(axis=1),
            probabilities_NC=probabilities,
            cost_N=everything[SECONDS].to_numpy(),
            failed_N=np.zeros(len(everything), dtype=bool),
        )
        start = 0
        for number, table in enumerate(tables):
            answered.rows(slice(start, start + len(table))).write(task_file(folder, number), table)
            start += len(table)
        identity = large.identity(sequence.label_names, context.config.assets_path, head=fit.head)
        write_json(folder / IDENTITY, {"identity": identity})

    return context.build(Recipe("outcomes", VERSION, section, (embedded,)), write, unit="fits", label="outcomes")


def _look_up(context: Context, tasks: Artefact, large: LargeConfig) -> Artefact:
    """Answers that the user already has, found by id."""
    sequence = load_sequence(tasks)
    model = large.build(sequence.answer_names, context.config.assets_path)
    section = {"large": large.model_dump(mode="json", exclude=set(large.operational)), "identity": model.identity}

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        done, total = 0, sum(len(sequence.rows(number)) for number in range(len(sequence.tasks)))
        for number in range(len(sequence.tasks)):
            table = sequence.rows(number)
            items = [Item(row_id, Content()) for row_id in table["id"].to_pylist()]
            Outcomes.of(model.answer(items), len(sequence.label_names)).write(task_file(folder, number), table)
            done += len(table)
            bar.update(done, total)
        write_json(folder / IDENTITY, {"identity": model.identity})

    return context.build(Recipe("outcomes", VERSION, section, (tasks,)), write)


def _ask(context: Context, tasks: Artefact, large: LargeConfig) -> Artefact:
    """Every row put to a model that needs no fitting."""
    sequence = load_sequence(tasks)
    asked = Asked(large, tuple(sequence.answer_names), len(sequence.label_names))
    identity = large.identity(sequence.answer_names, context.config.assets_path)
    section = asking_section(context, large, identity)

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        tables = [sequence.rows(number) for number in range(len(sequence.tasks))]
        rows = pa.concat_tables([table.select(["id", "text", "image"]) for table in tables])
        rows = rows.append_column("prompt", pa.array([written_prompt(NO_PROMPT)] * len(rows)))
        answered, took = ask(context, asked, rows, scratch=scratch, bar=bar)
        start = 0
        for number, table in enumerate(tables):
            answered.rows(slice(start, start + len(table))).write(task_file(folder, number), table)
            start += len(table)
        write_json(folder / IDENTITY, {"identity": identity} | took)

    return context.build(Recipe("outcomes", VERSION, section, (tasks,)), write)


def asking_section(context: Context, large: LargeConfig, identity: str) -> dict[str, Any]:
    """What decides the answers of a model that is asked, and nothing of how fast they come."""
    decides = large.model_dump(mode="json", exclude=set(large.operational))
    return {"large": decides, "identity": identity, "device": context.config.cluster.device}
