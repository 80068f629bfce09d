"""What would stop a run after hours of encoding is refused when the rows have been read."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from mlflow import MlflowClient

from kcm.config import load_config, parse_config
from kcm.errors import ConfigError, DataError
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.run import STAGES, run, run_context
from pipelines.stages.stage import run_stages
from pipelines.store.artefact import Artefact, ArtefactStore
from pipelines.store.files import Files, StorageError
from pipelines.store.storage import Storage
from tests.tiny_bert import save_bert


def small_run(folder: Path, memory: int = 100, text_column: str = "text") -> RunConfig:
    """A run on a table that is written into the folder."""
    lines = [
        f"a sentence of {label} with number {row},{label}" for label in ("tea", "rain", "wool") for row in range(40)
    ]
    (folder / "rows.csv").write_text("\n".join(["text,label", *lines]))
    source = {"kind": "files", "path": str(folder / "rows.csv"), "text_column": text_column, "label_column": "label"}
    values = {
        "name": "small",
        "storage_path": folder / "storage",
        "tasks": {"source": source, "scenario": "class_incremental", "num_tasks": 3},
        "encoder": {"model": "no/such-model"},
        "large": {"adapter": "classifier", "encoder": {"model": "no/such-model"}},
        "learner": {"name": "replay", "memory": memory},
    }
    return parse_config(RunConfig, values)


def stages(folder: Path, memory: int) -> Iterator[tuple[str, Artefact]]:
    config = small_run(folder, memory)
    context = Context(config.name, ArtefactStore(config.storage_path), config.assets_path)
    return run_stages([stage.of(config) for stage in STAGES], context)


def test_memory_too_small_for_labels_fails_before_encoding(tmp_path) -> None:
    """Promise: a memory without room for every label is refused before anything is encoded."""
    with pytest.raises(ConfigError, match=r"memory = 2 is smaller than the number of labels, 3 \(learner\.memory\)"):
        next(stages(tmp_path, memory=2))
    stage, _ = next(stages(tmp_path, memory=3))
    assert stage == "tasks"


def test_missing_column_is_reported_before_a_cluster_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a column that is not there is reported before a cluster is started."""
    monkeypatch.setattr("pipelines.cluster.connection.connected", lambda *_: pytest.fail("a cluster is started"))
    monkeypatch.setattr("pipelines.run.starts_local", lambda _: True)  # whatever else this session has started
    with pytest.raises(DataError, match=r"no column 'txet'.*Did you mean 'text'"):
        run(small_run(tmp_path, text_column="txet"))
    assert not (tmp_path / "storage").exists()


def test_few_texts_need_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: up to `cluster.in_process_rows`, this process encodes, solves, searches and certifies."""
    monkeypatch.setattr("pipelines.cluster.connection.connected", lambda *_: pytest.fail("a cluster is started"))
    for name in ("run", "stages.stage"):
        monkeypatch.setattr(f"pipelines.{name}.starts_local", lambda _: True)  # whatever else this session has started
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    model = str(save_bert(tmp_path / "bert", ("tea", "rain", "wool", "sentence", "of", "with", "number", "a")))
    parts = {"encoder": {"model": model}, "large": {"adapter": "classifier", "encoder": {"model": model}}}
    config = small_run(tmp_path).model_dump(mode="json") | parts | {"learner": {"name": "analytic"}}
    config["tasks"] |= {"scenario": "class_incremental", "num_tasks": 1}
    result = run(parse_config(RunConfig, config | {"collaborators": ["kcm"], "network": {"hidden": []}}), "evaluate")
    assert result["kcm"]["overall"]["small_accuracy"] > 0.9


def test_a_run_ends_in_mlflow_however_far_it_got(tmp_path: Path) -> None:
    """Promise: `--until` finishes its run, a run that is refused is failed, and both have their parameters."""
    for memory, until, status in ((3, "tasks", "FINISHED"), (2, None, "FAILED")):
        config = small_run(tmp_path, memory=memory)
        with nullcontext() if until else pytest.raises(ConfigError, match="memory"):
            run(config, until)
        client = MlflowClient(config.tracking.uri_in(tmp_path / "storage"))
        experiment = client.get_experiment_by_name(config.name)
        assert experiment is not None
        newest = client.search_runs([experiment.experiment_id])[0]
        assert newest.info.status == status
        assert newest.data.params["learner.memory"] == str(memory)


CONFIG = Path(__file__).parents[2] / "jobs/configs/reviews.yaml"


@pytest.fixture
def config(node_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setattr("pipelines.cluster.connection.connected", lambda cluster: nullcontext())
    databases = [f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", f"serve.feedback.url=sqlite:///{tmp_path}/log.db"]
    return load_config(RunConfig, CONFIG, [f"storage_path={node_bucket}", *databases])


def fail(config: RunConfig) -> None:
    """A run that lists its bad rows and stops; the service of the same run goes on beside it."""
    with run_context(config, []) as context:
        (context.run_folder / "bad_rows.csv").write_text("id,reason")
        (context.run_folder / "service").mkdir()
        (context.run_folder / "service" / "token").write_text("secret")
        raise DataError("too many bad rows")


def test_a_run_that_fails_keeps_its_bad_rows_and_no_token(config: RunConfig) -> None:
    with pytest.raises(DataError, match="too many"):
        fail(config)
    names = [stat.name for stat in Files.at(config.storage_path).list("runs")]
    assert names == ["runs/reviews/bad_rows.csv"]


def test_first_error_is_raised_if_results_cannot_be_kept(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: what stopped a run is raised where its results cannot be kept."""

    def refused(storage: Storage, path: Path) -> None:
        raise StorageError("the credentials are refused: ExpiredToken")

    monkeypatch.setattr(Storage, "keep", refused)
    with pytest.raises(DataError, match="too many"):
        fail(config)
    with pytest.raises(StorageError, match="ExpiredToken"), run_context(config, []):
        pass


def test_paid_answers_of_a_bucket_run_are_kept_in_the_log(config: RunConfig) -> None:
    """Promise: answers that are paid for are kept in the log of a run whose storage is a bucket."""
    with run_context(config, []) as context:
        assert context.responses is not None
        assert (context.responses.url, context.responses.prefix) == (config.serve.feedback.url, "paid_")
