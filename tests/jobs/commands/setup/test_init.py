"""`kcm init` writes a configuration that the first stage accepts, from tables that nobody tuned on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner, Result

from benchmarks.sequences import build_sequence
from jobs.cli import app
from jobs.commands.first_config import source_of
from kcm.config import load_config
from kcm.encoders.precomputed import vector_columns
from kcm.inputs.content import Content
from kcm.inputs.labels import UNLABELLED
from kcm.large import Item
from kcm.large.adapters.classifier import ClassifierConfig
from pipelines.config import RunConfig
from tests.kcm.inputs.table_files import WRITERS


def intents(num_rows: int, num_labels: int = 10) -> pd.DataFrame:
    label = np.arange(num_rows) % num_labels
    return pd.DataFrame(
        {
            "id": [f"row-{number}" for number in range(num_rows)],
            "utterance": [f"I need help with matter {kind}, case {number}" for number, kind in enumerate(label)],
            "intent": [f"intent_{kind}" for kind in label],
        }
    )


def init(*words: object) -> Result:
    return CliRunner().invoke(app, ["init", *map(str, words)])


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_of_intents_gives_a_configuration_that_works(at: Path) -> None:
    intents(1000).to_csv("intents.csv", index=False)
    shown = init("intents.csv", "--json", "out.json")
    assert (shown.exit_code, shown.stdout) == (0, "intents.yaml\n"), shown.stderr
    assert "1,000 rows, 10 labels" in shown.stderr
    assert shown.stderr.splitlines()[-1] == "next: kcm run intents.yaml"
    assert "columns:\n  text      'utterance'\n  label     'intent'\n  id        'id'\nchoose others by" in shown.stderr
    assert "units to certify on; a loss of at most" in shown.stderr
    config = load_config(RunConfig, at / "intents.yaml")
    sequence = build_sequence(config.tasks, config.assets_path, config.seed)
    assert len(sequence.tasks) == 1
    assert len(sequence.label_names) == 10
    assert config.certificate.epsilon == 0.02
    result = json.loads((at / "out.json").read_text())
    assert (result["columns"]["text"], result["columns"]["label"]) == ("utterance", "intent")
    assert result["rows"] == 1000


def test_epsilon_is_what_few_rows_can_certify(at: Path) -> None:
    intents(300, 4).to_csv("few.csv", index=False)
    shown = init("few.csv")
    config = load_config(RunConfig, at / "few.yaml")
    assert 0.02 < config.certificate.epsilon <= 0.05
    assert "units to certify on; a loss of at most" in shown.stderr


def test_answers_in_the_table_become_a_recorded_large_model(at: Path) -> None:
    frame = intents(400)
    frame.assign(gpt=frame["intent"].where(frame.index % 9 > 0, "intent_0")).to_csv("answered.csv", index=False)
    assert init("answered.csv", "--large", "gpt").exit_code == 0
    config = load_config(RunConfig, at / "answered.yaml")
    assert config.large.adapter == "recorded"
    assert config.large.build([f"intent_{kind}" for kind in range(10)], at).answer([]) == []
    assert init("answered.csv", "--output", "other.yaml").exit_code == 0
    assert load_config(RunConfig, at / "other.yaml").large.adapter == "classifier"


def test_a_column_of_lists_is_an_embedding(at: Path) -> None:
    """Promise: the numbers of an embedding have one unit, so rows are scaled and not columns."""
    vectors = np.random.default_rng(0).normal(size=(300, 4)).tolist()
    answers = pd.DataFrame({"vector": vectors, "kind": ["cat", "dog", "cow"] * 100, "gpt": "cat"})
    answers.to_parquet("vectors.parquet")
    shown = init("vectors.parquet", "--label", "kind", "--large", "gpt")
    assert shown.exit_code == 0, shown.stderr
    assert load_config(RunConfig, at / "vectors.yaml").network.scaling == "unit"


@pytest.mark.parametrize("as_bytes", [True, False])
def test_pictures_without_texts_use_two_network_sizes(at: Path, as_bytes: bool) -> None:
    """Promise: pictures without texts are read by two sizes of a network."""
    (at / "pictures").mkdir()
    for number in range(300):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(at / "pictures" / f"{number}.png")
    files = [at / "pictures" / f"{number}.png" for number in range(300)]
    cells = [file.read_bytes() if as_bytes else str(file.relative_to(at)) for file in files]
    pd.DataFrame({"picture": cells, "kind": ["cat", "dog", "cow"] * 100}).to_parquet("pets.parquet")
    shown = init("pets.parquet")
    assert (shown.exit_code, shown.stdout) == (0, "pets.yaml\n"), shown.stderr
    assert "300 rows, 3 labels" in shown.stderr
    assert shown.stderr.splitlines()[-1] == "next: kcm run pets.yaml"
    config = load_config(RunConfig, at / "pets.yaml")
    assert config.encoder.reads == config.large.reads == {"image"}
    assert isinstance(config.large, ClassifierConfig)
    assert config.large.encoder.side > config.encoder.side


def test_a_table_with_domains_gives_a_task_for_each(at: Path) -> None:
    frame = intents(800, 4)
    frame.assign(domain=np.where(np.arange(800) % 8 < 4, "one", "two")).to_parquet("domains.parquet")
    assert init("domains.parquet").exit_code == 0
    config = load_config(RunConfig, at / "domains.yaml")
    sequence = build_sequence(config.tasks, config.assets_path, config.seed)
    assert [task.name for task in sequence.tasks] == ["one", "two"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rows.csv", "--label", "intnt"], "no column 'intnt' (--label)"),
        (["nowhere.csv"], "no such file"),
        (["numbers.csv"], "no column looks like labels"),
        (["tables"], "no column 'utterance' (text_column)"),
        (
            ["rows.csv", "--output", "taken.yaml"],
            "the file exists already (taken.yaml). Replace it with --overwrite, or",
        ),
    ],
)
def test_what_cannot_be_done_is_said(at: Path, words: list[str], message: str) -> None:
    intents(100, 2).to_csv("rows.csv", index=False)
    pd.DataFrame({"a": range(100)}).to_csv("numbers.csv", index=False)
    (at / "tables").mkdir()
    intents(100, 2).to_csv("tables/first.csv", index=False)
    intents(100, 2).rename(columns={"utterance": "question"}).to_csv("tables/second.csv", index=False)
    (at / "taken.yaml").touch()
    shown: Any = init(*words)
    assert shown.exit_code == 2
    assert message in shown.stderr


def rows_of(num_rows: int) -> list[dict[str, object]]:
    """Rows with letters beyond ASCII, commas and semicolons in their texts, and numbers as labels of a column."""
    return [
        {"nr": n, "text": f"Größe; Café, Fall {n} über {kind}", "label": kind}
        for n, kind in ((n, ("rot", "grün", "blau", "weiß")[n % 4]) for n in range(num_rows))
    ]


def test_unlabelled_rows_are_kept_for_the_large_model(at: Path) -> None:
    """Promise: many rows without a label are kept for the large model to teach by."""
    rows: list[dict[str, Any]] = [{"id": n, **row} for n, row in enumerate(rows_of(400))]
    for row in rows[::3]:
        row["label"] = ""
    (at / "few.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shown = init("few.jsonl")
    assert shown.exit_code == 0, shown.stderr
    assert "rows without a label join the train rows" in shown.stderr
    config = load_config(RunConfig, at / "few.yaml")
    assert config.tasks.unlabelled == "keep"
    built = build_sequence(config.tasks, config.assets_path, config.seed)
    assert (
        sum(label == UNLABELLED for task in built.tasks for label in task.splits["train"]["label"].to_pylist()) == 134
    )


def test_a_data_set_of_the_hub_is_read_by_its_name(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(repo: str, subset: str | None, revision: str | None, *, folder: Path) -> dict[str, Path]:
        pd.DataFrame(rows_of(200)).to_parquet(folder / "train.parquet")
        return {"train": folder / "train.parquet"}

    monkeypatch.setattr("kcm.assets.hub.export_data_set", export)
    shown = init("hf://owner/name")
    assert shown.exit_code == 0, shown.stderr
    assert "200 rows, 4 labels: " in shown.stderr
    source = load_config(RunConfig, at / "name.yaml").tasks.source
    assert (source.kind, source.id, source.text_column) == ("hub", "owner/name", "text")
    assert source_of(["hf://datasets/owner/name/plus@v1"]) == {
        "kind": "hub",
        "id": "owner/name",
        "subset": "plus",
        "revision": "v1",
    }


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json", "rows.parquet", "rows.xlsx", "rows.csv.gz"])
def test_answers_in_the_table_need_no_id(at: Path, name: str) -> None:
    """text, label and large alone: the rows are numbered, and each finds the answer beside it."""
    rows: list[dict[str, object]] = [
        {"text": f"thing {n} of kind {n % 3}", "label": n % 3, "large": n % 3 if n % 8 else 0} for n in range(300)
    ]
    WRITERS[name](rows, at / name)
    shown = init(name, "--large", "large", "--output", "first.yaml")
    assert shown.exit_code == 0, shown.stderr
    config = load_config(RunConfig, at / "first.yaml")
    assert (config.large.id_column, config.large.label_column) == (None, "large")
    records = list(config.tasks.source.build(at).records)
    answers = config.large.build(["0", "1", "2"], at).answer([Item(row.id, Content()) for row in records])
    assert [str(answer.label) for answer in answers] == [str(row["large"]) for row in rows]


def test_ignored_files_of_a_folder_are_named(at: Path) -> None:
    """A folder with a file named after a split and others: the others are not read, and named."""
    (at / "rows").mkdir()
    for name, size in (("train", 300), ("other", 10), ("more", 10)):
        intents(size, 3).drop(columns="id").to_csv(at / "rows" / f"{name}.csv", index=False)
    shown = init("rows")
    line = "warning: rows: train.csv is read, named after a split; ignored: more.csv, other.csv (2 files)"
    assert line in shown.stderr


def test_table_without_labels_leads_to_kcm_label(at: Path) -> None:
    """Texts alone can be labelled by a large model."""
    intents(300)[["utterance"]].to_csv("texts.csv", index=False)
    shown = init("texts.csv")
    assert shown.exit_code == 2
    assert "If there is none: kcm label texts.csv --llm MODEL --labels A,B" in shown.stderr


def test_columns_of_numbers_are_the_vector(at: Path) -> None:
    """Promise: a table of numbers needs no large model's answers; its large model is a linear one, which is said."""
    load_digits(as_frame=True).frame.to_csv("digits.csv", index=False)
    shown = init("digits.csv")
    assert shown.exit_code == 0, shown.stderr
    assert "the large model is a linear one on the same numbers" in shown.stderr
    config = load_config(RunConfig, at / "digits.yaml")
    assert len(vector_columns(config.encoder)) == 64
    assert config.large.adapter == "classifier"
    assert config.network.scaling == "unit"
    load_digits(as_frame=True).frame[["pixel_2_2", "pixel_3_3", "target"]].to_csv("few.csv", index=False)
    assert init("few.csv").exit_code == 0
    assert load_config(RunConfig, at / "few.yaml").network.scaling == "first_task"  # columns have units of their own


def test_overwrite_replaces_the_configuration(at: Path) -> None:
    intents(200, 2).to_csv("rows.csv", index=False)
    (at / "rows.yaml").write_text("name: mine")
    assert init("rows.csv", "--overwrite").exit_code == 0
    assert load_config(RunConfig, at / "rows.yaml").name == "rows"


def test_rare_labels_are_left_out(at: Path) -> None:
    """Promise: labels of fewer rows than splits need do not stop a run."""
    rows = rows_of(200)
    rows[7]["label"] = "lila"
    WRITERS["rows.csv"](rows, at / "rows.csv")
    shown = init("rows.csv")
    assert "labels with fewer than 3 rows are left out" in shown.stderr
    assert load_config(RunConfig, at / "rows.yaml").tasks.source.labels == ("blau", "grün", "rot", "weiß")


def write_tables(**labels: list[str]) -> list[str]:
    """A table of 120 rows for each name."""
    for name, own in labels.items():
        rows = {
            "text": [f"case {n} of {name}: {own[n % len(own)]}" for n in range(120)],
            "label": own * (120 // len(own)),
        }
        pd.DataFrame(rows).to_csv(f"{name}.csv", index=False)
    return [f"{name}.csv" for name in labels]


@pytest.mark.parametrize(
    ("labels", "scenario"),
    [
        ({"b": ["cat", "dog"], "a": ["car", "bus"], "c": ["red", "blue"]}, "class_incremental"),
        ({"b": ["cat", "dog"], "a": ["dog", "cat"]}, "domain_incremental"),
    ],
)
def test_several_tables_are_tasks_in_their_order(at: Path, labels: dict[str, list[str]], scenario: str) -> None:
    """Promise: each table is a task named after its file; their labels decide on the scenario."""
    assert init(*write_tables(**labels), "--output", "tasks.yaml").exit_code == 0
    config = load_config(RunConfig, at / "tasks.yaml")
    sequence = build_sequence(config.tasks, config.assets_path, config.seed)
    assert (config.tasks.scenario, config.tasks.grows) == (scenario, True)
    assert [(task.name, set(task.label_names)) for task in sequence.tasks] == [(k, set(v)) for k, v in labels.items()]


def test_tables_that_share_some_labels_are_refused(at: Path) -> None:
    """Promise: a person says what partly shared labels mean; both ways out are named and work."""
    tables = write_tables(first=["cat", "dog"], second=["dog", "cow"])
    shown = init(*tables)
    assert shown.exit_code == 2
    assert "Add --scenario task_incremental" in shown.stderr
    assert "or name a task column with --task" in shown.stderr
    assert init(*tables, "--scenario", "task_incremental").exit_code == 0
    assert load_config(RunConfig, at / "first.yaml").tasks.scenario == "task_incremental"
    assert init(*tables, "--task", "none", "--overwrite").exit_code == 0
    assert load_config(RunConfig, at / "first.yaml").tasks.num_tasks == 1


def test_task_column_is_read_by_the_same_rule(at: Path) -> None:
    """Promise: a task column whose tasks share no label is class-incremental."""
    intents(400, 4).assign(domain=[("one", "two")[n % 4 // 2] for n in range(400)]).to_csv("rows.csv", index=False)
    assert init("rows.csv").exit_code == 0
    assert load_config(RunConfig, at / "rows.yaml").tasks.scenario == "class_incremental"
