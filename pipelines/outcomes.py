"""Stage `outcomes`: what the large model says of every row, asked once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kcm.large import ClassifierConfig, Item, LargeAnswer, RecordedConfig, RecordedModel, fit_head
from kcm.large.classifier import classifier_identity
from kcm.learners.stream import list_column
from pipelines.artefact import Artefact, Recipe, write_json
from pipelines.features import SECONDS, feature_matrix, features, read_features, task_file, write_rows
from pipelines.progress import Bar
from pipelines.stage import Context
from pipelines.tasks import load_sequence

VERSION = 1
HEAD = "large_head.safetensors"
IDENTITY = "large.json"


def outcomes(context: Context, tasks: Artefact) -> Artefact:
    """One Parquet file per task, its rows as in the features: prompt, label, probabilities, cost, error.

    Labels count in the label list; the number after its last stands for none-of-these.
    """
    large = context.config.large
    if isinstance(large, ClassifierConfig):
        return _classify(context, tasks, large)
    return _look_up(context, tasks, large)


def _classify(context: Context, tasks: Artefact, large: ClassifierConfig) -> Artefact:
    """A linear head on the large encoder's features, fitted on the train rows of all tasks.

    Train rows carry out-of-fold probabilities: in-sample ones would teach the small model a certainty that is not
    there on new rows.
    """
    embedded = features(context, tasks, large.encoder, label="outcomes")
    section = {"large": large.model_dump(mode="json", exclude={"encoder"}), "seed": context.config.seed}

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        sequence = load_sequence(tasks)
        tables = [read_features(embedded.folder, number) for number in range(len(sequence.tasks))]
        everything = pa.concat_tables(tables)
        inputs_ND, is_train = feature_matrix(everything), np.asarray(everything["split"]) == "train"
        # A row without a group stands alone: its id is its group.
        groups = pc.coalesce(everything["group"], everything["id"]).filter(pa.array(is_train)).to_pylist()
        labels = everything["label"].to_numpy()[is_train]
        bar.update(0, 1)
        fit = fit_head(
            inputs_ND[is_train],
            labels,
            groups,
            len(sequence.label_names),
            num_folds=large.num_folds,
            seed=context.config.seed,
        )
        bar.update(1, 1)
        probabilities = fit.head.probabilities(inputs_ND)
        probabilities[is_train] = fit.out_of_fold_NC
        fit.head.save(folder / HEAD)
        cost, start = everything[SECONDS].to_numpy(), 0
        for number, table in enumerate(tables):
            rows = slice(start, start + len(table))
            _write(
                task_file(folder, number),
                table,
                labels=probabilities[rows].argmax(axis=1),
                probabilities_NC=probabilities[rows],
                cost=cost[rows],
                failed=np.zeros(len(table), dtype=bool),
            )
            start += len(table)
        identity = embedded.manifest["section"]["identity"]
        write_json(folder / IDENTITY, {"identity": classifier_identity(identity, fit.head, sequence.label_names)})

    return context.build(Recipe("outcomes", VERSION, section, (embedded,)), write, unit="fits", label="outcomes")


def _look_up(context: Context, tasks: Artefact, large: RecordedConfig) -> Artefact:
    """Answers that the user already has, found by id."""
    sequence = load_sequence(tasks)
    model = RecordedModel(large, sequence.answer_names)
    section = {"large": large.model_dump(mode="json", exclude={"path"}), "identity": model.identity}

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        done, total = 0, sum(len(sequence.rows(number)) for number in range(len(sequence.tasks)))
        for number in range(len(sequence.tasks)):
            table = sequence.rows(number)
            items = [Item(row["id"], row["text"]) for row in table.select(["id", "text"]).to_pylist()]
            _write_answers(task_file(folder, number), table, model.answer(items), len(sequence.label_names))
            done += len(table)
            bar.update(done, total)
        write_json(folder / IDENTITY, {"identity": model.identity})

    return context.build(Recipe("outcomes", VERSION, section, (tasks,)), write)


def _write_answers(path: Path, table: pa.Table, answers: Sequence[LargeAnswer], num_labels: int) -> None:
    _write(
        path,
        table,
        labels=np.array([-1 if answer.label is None else answer.label for answer in answers]),
        probabilities_NC=np.stack([_over_labels(answer, num_labels) for answer in answers]),
        cost=np.array([answer.cost.seconds for answer in answers]),
        failed=np.array([answer.error is not None for answer in answers]),
    )


def _over_labels(answer: LargeAnswer, num_labels: int) -> np.ndarray:
    """Probabilities [C] over the label list, which teach; NaN where there are none, or none-of-these was answered."""
    if answer.probabilities is None or answer.label is None or answer.label >= num_labels:
        return np.full(num_labels, np.nan, dtype=np.float32)
    probabilities_C: np.ndarray = answer.probabilities[:num_labels]
    return probabilities_C / probabilities_C.sum()


def _write(
    path: Path,
    table: pa.Table,
    *,
    labels: np.ndarray,
    probabilities_NC: np.ndarray,
    cost: np.ndarray,
    failed: np.ndarray,
) -> None:
    columns = table.select(["id", "split"])
    columns = columns.append_column("prompt", pa.array(["none"] * len(table)))
    columns = columns.append_column("large_label", pa.array(labels, pa.int64()))
    columns = columns.append_column("large_probabilities", list_column(probabilities_NC.astype(np.float32)))
    columns = columns.append_column("large_cost", pa.array(cost, pa.float64()))
    write_rows(path, columns.append_column("large_error", pa.array(failed, pa.bool_())))
