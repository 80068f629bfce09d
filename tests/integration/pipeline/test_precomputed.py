"""Rows that bring their vectors: trained on without an encoder, and answered alike by file, in Python and over HTTP."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import kcm
from kcm.bundle.bundle import Bundle
from kcm.cascade.policy import Decision, Policy
from kcm.config import parse_config
from pipelines.batch.predict import predict
from pipelines.config import RunConfig
from pipelines.progress import Reporter
from pipelines.run import run
from pipelines.serve.config import ServeConfig
from pipelines.serve.release import Release
from pipelines.stages.parent import BundleArtefact
from pipelines.store.artefact import ArtefactStore
from tests.http_replica import opened_http_replica

NUM_ROWS, DIM, ASKED = 900, 4, 30
VECTORS = {"kind": "precomputed", "columns": ["f_*"]}


def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    values_ND = rng.normal(size=(NUM_ROWS, DIM)).astype(np.float32)
    is_yes_N = values_ND[:, 0] + rng.normal(scale=0.3, size=NUM_ROWS) > 0
    columns = {f"f_{number}": values_ND[:, number] for number in range(DIM)}
    return pd.DataFrame(
        columns | {"id": [f"row {n}" for n in range(NUM_ROWS)], "label": np.where(is_yes_N, "yes", "no")}
    )


def values_of(rows: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """A run on these rows, whose learner and shares are still to be said."""
    rows.to_parquet(folder / "rows.parquet")
    source = {"kind": "files", "path": str(folder / "rows.parquet"), "text_column": None, "id_column": "id"}
    return {
        "name": "vectors",
        "storage_path": str(folder / "storage"),
        "assets_path": str(folder),
        "tasks": {"source": source, "scenario": "class_incremental", "num_tasks": 1},
        "encoder": VECTORS,
        "large": {"adapter": "classifier", "encoder": VECTORS},
        "collaborators": ["kcm"],
        "tune": {"num_trials": 2},
        "cluster": {"num_workers": 1, "num_encoders": 1},
    }


@pytest.mark.integration
@pytest.mark.usefixtures("ray_cluster")
def test_champion_without_test_rows_is_replaced_only_by_hand(tmp_path: Path) -> None:
    """The large model teaches by the rows without a label; figures are of train rows that were left out.

    KCM and its control have as many coefficients, and stand under their own names.
    """
    given = rows()
    given.loc[given.index % 4 == 0, "label"] = ""
    values = values_of(given, tmp_path) | {"collaborators": ["kcm", "mcm", "linear"]}
    fractions = {"train": 0.6, "validate": 0, "certify": 0.4, "test": 0}
    values["tasks"] |= {"unlabelled": "keep", "max_bad_rows": "1%", "fractions": fractions}
    result = run(parse_config(RunConfig, values))
    sizes = {result[name]["num_parameters"] for name in ("kcm", "mcm")}
    assert sizes == {2 * (DIM + 4 * 512 + 1)}
    assert result["linear"]["num_parameters"] == 2 * (DIM + 1)
    found = result["kcm"]
    assert (found["measured_on"], found["continual"], found["accuracy_matrix"]) == ("validate", {}, [])
    assert max(result[name]["answer_weight"] for name in ("kcm", "mcm")) > 0
    assert found["certificate"]["decision"] != "escalate_all"
    assert found["certificate"]["num_rows"] + found["overall"]["num_rows"] == (given["label"] != "").sum()
    assert result["mlflow"]["champion"] == result["mlflow"]["version"]
    again = run(parse_config(RunConfig, values | {"seed": 1}))
    assert "there is no row to compare on" in again["promotion"]["reason"]
    assert again["mlflow"]["champion"] == result["mlflow"]["version"]


@pytest.mark.integration
@pytest.mark.usefixtures("ray_cluster")
def test_vectors_are_trained_on_predicted_loaded_and_served(tmp_path: Path) -> None:
    given = rows()
    values = values_of(given, tmp_path) | {
        "network": {"hidden": [4]},
        "learner": {"name": "finetune"},
        "train": {"num_epochs": 2},
        "tune": {"num_trials": 1, "gates": ["confidence"], "learning_rates": [0.003], "large_weights": [1.0]},
    }
    config = parse_config(RunConfig, values)
    assert run(config)["kcm"]["overall"]["large_accuracy"] > 0.8

    (made,) = ArtefactStore(config.storage_path).finished("register")
    trained = Bundle.read(made.as_a(BundleArtefact).bundle)
    asked = given.head(ASKED)
    vectors = asked[[f"f_{number}" for number in range(DIM)]].to_numpy()
    scores = [each.gate_score for each in kcm.load(made.as_a(BundleArtefact).bundle).predict([*vectors_of(asked)])]
    halfway = Decision(decision="threshold", threshold=float(np.median(scores)))
    policy = Policy(gate=trained.policy.gate, temperature=trained.policy.temperature, decision=halfway)
    folder = replace(trained, policy=policy, certificates={}).write(tmp_path / "bundle")

    asked.drop(columns="label").to_parquet(tmp_path / "in.parquet")
    quiet = Reporter(Console(quiet=True))
    where = tmp_path / "in.parquet", tmp_path / "out.parquet"
    predict(folder, *where, "text", cluster=config.cluster, assets_dir=tmp_path, reporter=quiet)
    predicted = pd.read_parquet(tmp_path / "out.parquet")
    assert predicted["error"].isna().all()
    assert set(predicted["route"]) == {"small", "large"}

    cascade = kcm.load(folder)
    for inputs in (vectors_of(asked), [{"features": vector.tolist()} for vector in vectors]):
        answers = cascade.predict(inputs)
        assert [answer.label for answer in answers] == predicted["label"].tolist()
        assert [answer.route for answer in answers] == predicted["route"].tolist()
    (refused,) = cascade.predict([{"features": [1.0, 2.0, 3.0]}])
    assert refused.reason == f"the vector has 3 numbers instead of {DIM}"

    bodies = [[vector.tolist() for vector in vectors], [[1.0, 2.0]]]
    (served, short), text = asyncio.run(asked_of(Release(version="vectors", bundle=folder), bodies, tmp_path))
    assert [answer["label"] for answer in served.json()["answers"]] == predicted["label"].tolist()
    assert [answer["route"] for answer in served.json()["answers"]] == predicted["route"].tolist()
    assert (short.status_code, text.status_code) == (422, 422)
    assert "features" in text.text


async def asked_of(
    release: Release, vectors: list[list[list[float]]], assets_dir: Path
) -> tuple[list[httpx.Response], httpx.Response]:
    """What a service says to requests of vectors, and to a text."""
    async with opened_http_replica(release, ServeConfig(), assets_dir) as client:

        async def ask(*items: dict[str, Any]) -> httpx.Response:
            return await client.post("/v1/predict", json={"inputs": items})

        answers = [await ask(*({"features": vector} for vector in body)) for body in vectors]
        return answers, await ask({"text": "no vector"})


def vectors_of(frame: pd.DataFrame) -> list[dict[str, float]]:
    """Rows as a table gives them: a column for each number of their vector."""
    return [{name: row[name] for name in row if name.startswith("f_")} for row in frame.to_dict("records")]
