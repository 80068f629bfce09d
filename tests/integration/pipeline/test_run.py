"""The main job on real models and real text: it ends with a bundle that serves what was measured."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from mlflow import MlflowClient
from rich.console import Console

from benchmarks.sequences import TaskSequence
from kcm.api.cascade import load_cascade
from kcm.bundle.answers import Input
from kcm.bundle.bundle import Bundle
from kcm.bundle.runtime import load_small_side
from kcm.cascade.policy import Decision, Policy
from kcm.config import load_config
from kcm.encoders.runtime import runtime_of
from kcm.inputs.content import Content
from pipelines.batch.predict import predict
from pipelines.config import RunConfig
from pipelines.progress import Reporter
from pipelines.run import STAGES, run
from pipelines.serve.config import ServeConfig
from pipelines.serve.release import Release
from pipelines.stages.parent import BundleArtefact
from pipelines.store.artefact import ArtefactStore
from pipelines.tracking.tracking import fetch_model
from tests.champions import alias_of
from tests.http_replica import opened_http_replica
from tests.notebooks import namespace_of
from tests.outcome_files import read_outcomes, rows_where
from tests.outside import install_extension
from tests.spoken import spoken_config
from tools.assets import fetch
from tools.catalog import ASSETS

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

CONFIG = Path(__file__).parents[3] / "jobs/configs/reviews.yaml"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# Few rows, a learner with a memory and steps, and a certificate so mild that some threshold passes: both routes are to
# be seen.
SMALL = {
    "collaborators": "[kcm, mcm]",
    "tasks.max_rows_per_task": 120,
    "tasks.fractions": "{train: 0.40, validate: 0.15, certify: 0.27, test: 0.18}",
    "learner": "{name: replay, memory: 1000, batch_size: 64}",
    "network": "{}",
    "train": "{num_epochs: 2, learning_rate: 0.001, weight_decay: 0.1}",
    "distill": "{large_weight: 3.0, judge_weight: 0.5, keep_confidence: 0.98}",
    "large.encoder": f"{{model: {MINILM}, pooling: cls}}",
    "tune.num_trials": 2,
    "tune.scopes": "[global]",
    "tune.learning_rates": "[0.0005, 0.001, 0.002]",
    "tune.judge_weights": "[0.0, 0.5]",
    "tune.gates": "[confidence]",
    "tune.max_loss": 0.05,
    "certificate.epsilon": 0.2,
    "cluster.num_encoders": 1,  # so few rows take less time than one more actor
    "cluster.num_workers": 1,
}


def small_config(storage: Path, assets_dir: Path, **more: Any) -> RunConfig:
    values = SMALL | {"storage_path": storage, "assets_path": assets_dir} | more
    return load_config(RunConfig, CONFIG, [f"{key}={value}" for key, value in values.items()])


@pytest.fixture(scope="module")
def config(assets_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    for name in ASSETS:
        fetch(name, assets_dir)
    return small_config(tmp_path_factory.mktemp("storage"), assets_dir, **{"tasks.salt": 4})


@pytest.fixture(scope="module")
def result(config: RunConfig) -> dict[str, Any]:
    return run(config)


def test_the_result_tells_all_that_was_promised(result: dict[str, Any], config: RunConfig) -> None:
    written = json.loads(Path(result["result_path"]).read_text())
    assert written == result
    assert result["seconds"].keys() == {stage.stage for stage in STAGES if stage.of(config).applies()}
    assert not any(result["cached"].values())
    for name in ("kcm", "mcm"):
        overall, tasks = result[name]["overall"], result[name]["tasks"]
        assert list(tasks) == ["reviews", "movies", "editorials", "tweets"]
        rows = [task["num_rows"] for task in tasks.values()]
        assert overall["num_rows"] == sum(rows)
        pooled = np.average([task["cascade_accuracy"] for task in tasks.values()], weights=rows)
        assert overall["cascade_accuracy"] == pytest.approx(pooled)
        assert overall["call_rate"] == pytest.approx(1 - overall["calls_saved"])
        assert overall["large_accuracy"] > 0.7
        assert np.array(result[name]["accuracy_matrix"]).shape == (4, 4)
    assert result["certificate"].keys() >= {"epsilon", "delta", "threshold", "decision", "bound", "valid"}
    assert Path(result["report"]).read_text().startswith("<!doctype html>")


def test_the_champion_is_the_bundle_that_was_measured(result, config, tmp_path) -> None:
    tracked = result["mlflow"]
    client = MlflowClient(tracked["tracking_uri"])
    record = client.get_run(tracked["run_id"])
    assert record.info.status == "FINISHED"
    assert record.data.metrics["kcm/calls_saved"] == pytest.approx(result["kcm"]["overall"]["calls_saved"])
    assert record.data.params["seed"] == "0"
    assert record.data.params["train.num_epochs"] == str(config.train.num_epochs)
    last = result["kcm"]["accuracy_matrix"][-1]
    assert record.data.metrics["kcm/accuracy/tweets"] == pytest.approx(last[-1])
    assert [each.path for each in client.list_artifacts(tracked["run_id"]) if each.path == "report.html"]
    parent = f"tags.`mlflow.parentRunId` = '{tracked['run_id']}'"
    experiment = client.get_experiment_by_name(config.name)
    # the trials of both collaborators
    assert len(client.search_runs([experiment.experiment_id], parent)) == 2 * config.tune.num_trials
    number = alias_of(tracked["tracking_uri"], tracked["model"])
    bundle = Bundle.read(fetch_model(tracked["tracking_uri"], f"{tracked['model']}/{number}", tmp_path))
    assert bundle.label_names == ("negative", "positive")
    assert bundle.metrics["overall"] == result["kcm"]["overall"]
    assert bundle.metrics["frontier"]["call_rate"][0] in (0.0, 1.0)
    made = config.storage_path / "artefacts/features" / bundle.lineage.artefacts["features"]
    (recorded,) = made.glob("*/features.json")
    assert runtime_of(bundle.encoder) == json.loads(recorded.read_text())["runtime"]
    assert {runtime_of(encoder) for encoder in (bundle.encoder, bundle.large.backbone)} <= {"torch", "onnx"}
    assert len(bundle.metrics["frontier"]["accuracy"]) == len(bundle.metrics["frontier"]["call_rate"])
    assert len(bundle.learner_state["memory"]["ids"]) > 0


def test_the_quick_start_runs(
    result: dict[str, Any], config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the run that is there already: its stages come from the cache."""
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    monkeypatch.setenv("KCM_EXAMPLE_CONFIG", str(file))
    monkeypatch.setenv("KCM_ASSETS", str(config.assets_path))
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "cache"))
    found = namespace_of("quickstart")
    assert all(found["result"]["cached"].values())
    assert set(found["frame"]["label"]) <= {"negative", "positive"}
    assert found["explained"].words


def test_a_cascade_gives_the_answers_that_were_measured(result: dict[str, Any], config: RunConfig) -> None:
    """Promise: what the stages computed in batches comes out of the bundle; over HTTP too, as test_serve.py shows."""
    evaluated = Path(result["artefacts"]["evaluate"]) / "kcm"
    table = rows_where(read_outcomes(evaluated / "outcomes.parquet"), split="test")
    policy = Policy.load(evaluated)
    cascade = load_cascade(Path(result["artefacts"]["register"]) / "bundle", config.assets_path)
    scores = cascade.bundle.gate.score(None, table.judge_logits)
    kept = policy.keep(scores)
    expected = np.where(kept, table.small_label, table.large_label)
    tasks = TaskSequence.load(Path(result["artefacts"]["tasks"])).tasks
    rows = pa.concat_tables([task.rows for task in tasks]).to_pylist()
    texts = {row["id"]: row["text"] for row in rows}
    answers = cascade.answer([Input(Content(texts[row_id])) for row_id in table.id])
    close = np.abs(scores - policy.decision.cut) < 1e-4
    assert close.sum() <= 2
    routes = np.array([answer.route for answer in answers])
    labels = np.array([cascade.bundle.label_names.index(answer.label) for answer in answers])
    np.testing.assert_array_equal(routes[~close], np.where(kept, "small", "large")[~close])
    np.testing.assert_array_equal(labels[~close], expected[~close])
    assert set(routes) == {"small", "large"}


def test_outside_components_run_on_a_bucket_and_are_served(
    served_bucket: str, cluster_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example package, installed by pip, brings one component of each family; nothing of ours knows of them.

    The storage is a bucket, whose files other stages than those that wrote them fetch again.
    """
    install_extension(cluster_path)
    monkeypatch.syspath_prepend(cluster_path)
    config = spoken_config(f"{served_bucket}/its prefix", tmp_path)
    components = (config.tasks.source, config.encoder, config.large, config.learner)
    assert {type(each).__module__.partition(".")[0] for each in components} == {"kcm_extension"}
    result = run(config)
    assert result["kcm"]["overall"]["large_accuracy"] == 1.0
    store = ArtefactStore(config.storage_path)
    assert result["artefacts"]["register"].startswith(f"{served_bucket}/its prefix/artefacts/register/")
    assert json.loads(store.storage.files.read("runs/extended/result.json")) == result
    shutil.rmtree(store.root)  # as on another node
    (made,) = store.finished("register")
    measured = Bundle.read(made.as_a(BundleArtefact).bundle)
    assert (measured.learner, measured.large, measured.encoder) == (config.learner, config.large, config.encoder)
    assert {name.partition(".")[0] for name in measured.learner_state} == {"judge", "small"}
    assert measured.collaborator.judge is measured.collaborator.small  # nothing was distilled
    assert result["kcm"]["num_networks"] == 1

    texts = [file.read_text() for file in sorted((tmp_path / "texts").glob("*/*.txt"))[:20]]
    judged = load_small_side(measured, tmp_path).judge([Input(Content(text)) for text in texts])
    halfway = Decision(decision="threshold", threshold=float(np.median([each.gate_score for each in judged])))
    policy = Policy(gate=measured.policy.gate, temperature=measured.policy.temperature, decision=halfway)
    assert policy.gate == "lead"
    folder = replace(measured, policy=policy, certificates={}).write(tmp_path / "bundle")
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "in.csv", index=False)
    predict(
        folder,
        tmp_path / "in.csv",
        tmp_path / "out.csv",
        "text",
        cluster=config.cluster,
        assets_dir=tmp_path,
        reporter=Reporter(Console(quiet=True)),
    )
    predicted = pd.read_csv(tmp_path / "out.csv")
    assert set(predicted["route"]) == {"small", "large"}

    served = asyncio.run(served_answers(Release(version="outside", bundle=folder), texts, tmp_path))
    assert [answer["route"] for answer in served] == predicted["route"].tolist()
    assert [answer["label"] for answer in served] == predicted["label"].tolist()


async def served_answers(release: Release, texts: list[str], assets_dir: Path) -> list[dict[str, Any]]:
    """What a service of this bundle answers over HTTP."""
    async with opened_http_replica(release, ServeConfig(), assets_dir) as client:
        response = await client.post("/v1/predict", json={"inputs": [{"text": text} for text in texts]})
    return response.json()["answers"]
