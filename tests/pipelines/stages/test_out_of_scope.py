"""Rows that have none of the labels: only the large model can be right of them, and the path of a run keeps to that."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kcm.bundle.bundle import Bundle
from kcm.cascade.novelty import Novelty
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.inputs.vectors import list_column
from kcm.parquet import write_table
from pipelines.run import STAGES
from pipelines.stages.register import MOST_CERTIFY_ROWS
from pipelines.stages.stage import run_stages
from tests.outcome_files import read_outcomes, rows_where
from tests.pipelines.runs import run_of

INTENTS = ("book", "cancel", "pay", "weather")
NONE = "oos"


def write_rows(path: Path) -> None:
    """An axis for every intent, and their middle for what is outside; the large model errs on a third of that in test.

    The other answers of the large model are right.
    """
    labels = [*INTENTS * 40, *[NONE] * 30]
    centre_LD = np.vstack([2.0 * np.eye(len(INTENTS)), np.ones(len(INTENTS))])
    rng, tables = np.random.default_rng(0), []
    for split in ("train", "validate", "certify", "test"):
        code_N = np.array([(*INTENTS, NONE).index(label) for label in labels])
        features_ND = (centre_LD[code_N] + rng.normal(scale=0.1, size=(len(labels), 4))).astype(np.float32)
        errs = [split == "test" and label == NONE and row % 3 == 0 for row, label in enumerate(labels)]
        columns = {
            "id": [f"{split} {label} {row}" for row, label in enumerate(labels)],
            "vector": list_column(features_ND),
            "label": labels,
            "split": [split] * len(labels),
            "large": ["pay" if err else label for err, label in zip(errs, labels, strict=True)],
        }
        tables.append(pa.table(columns))
    write_table(pa.concat_tables(tables), path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run from the rows to the bundle."""
    folder = tmp_path_factory.mktemp("intents")
    write_rows(file := folder / "rows.parquet")
    columns = {"id_column": "id", "label_column": "label", "split_column": "split", "text_column": None}
    config, context = run_of(
        folder,
        file,
        source=columns | {"out_of_scope_label": NONE},
        collaborators=["kcm"],
        encoder={"kind": "precomputed", "column": "vector"},
        tasks={"out_of_scope": "keep", "num_tasks": 2},
        large={"adapter": "recorded", "path": str(file), "id_column": "id", "label_column": "large"},
        tune={"gates": ["confidence"], "scopes": ["global"], "max_loss": 0.0},
        certificate={"epsilon": 0.1},
    )
    done = dict(run_stages([stage.of(config) for stage in STAGES], context))
    return done | {
        "result": done["evaluate"].result["kcm"],
        "table": read_outcomes(done["evaluate"].folder / "kcm" / "outcomes.parquet"),
        "bundle": Bundle.read(done["register"].bundle),
    }


def test_out_of_scope_rows_are_neither_trained_nor_tested_on(run) -> None:
    sequence = run["tasks"]
    for number, rows in enumerate(run["train"].plan.trainer("kcm").tasks):
        labels = sequence.task(number, split="test")["label"].to_pylist()
        assert OUT_OF_SCOPE in labels
        assert rows.num_rows("test") == len([label for label in labels if label != OUT_OF_SCOPE])
        assert OUT_OF_SCOPE not in rows.label_counts("train")


def test_out_of_scope_is_small_wrong_and_large_right_if_none(run) -> None:
    """Promise: in the table the small model is wrong and the large one right iff it says none."""
    table = rows_where(run["table"], split="test")
    outside = np.array([NONE in row_id for row_id in table.id])
    assert outside.sum() == 30
    assert not table.small_correct[outside].any()
    said_pay = np.array([int(row_id.split()[2]) % 3 == 0 for row_id in table.id[outside]])
    np.testing.assert_array_equal(table.large_correct[outside], ~said_pay)
    assert table.small_correct[~outside].mean() > 0.95


def test_result_counts_escalated_and_none_answers(run) -> None:
    """Promise: a certified cascade keeps what it knows, sends on what nobody taught it, and says both."""
    assert run["result"]["certificate"]["valid"]
    assert run["bundle"].policy.farthest is not None  # what escalates them where the threshold keeps all
    assert run["result"]["overall"]["calls_saved"] > 0.6
    assert run["result"]["out_of_scope"] == {
        "out_of_scope_num_rows": 30,
        "out_of_scope_escalated": 1.0,
        "out_of_scope_accuracy": pytest.approx(20 / 30),
    }


def test_the_bundle_remembers_what_none_of_the_labels_is_called(run) -> None:
    assert (run["bundle"].label_names, run["bundle"].none_label) == (INTENTS, NONE)


def test_the_bundle_holds_what_its_certify_rows_say_of_traffic(run) -> None:
    bundle, table = run["bundle"], rows_where(run["table"], split="certify")
    assert len(bundle.certify_rows) == min(len(table), MOST_CERTIFY_ROWS)
    distance_N = Novelty.of(bundle.learner_state).distances(table.judge_logits[:, : len(INTENTS)])
    assert 0.05 < (distance_N > bundle.novelty.threshold).mean() < bundle.novelty.limit < 0.3
