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
from jobs.commands.inspect_table import initialise, source_of
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


def digits(folder: Path) -> None:
    """Pictures as people have them in a first table: a column for every pixel."""
    frame = load_digits(as_frame=True).frame
    answers = frame["target"].where(frame.index % 20 > 0, 0)
    frame.assign(id=[f"row-{number}" for number in frame.index], gpt=answers).to_csv(folder / "digits.csv", index=False)


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


def test_too_few_rows_are_warned_of(at: Path) -> None:
    intents(60, 2).to_csv("tiny.csv", index=False)
    shown = init("tiny.csv")
    assert "everything would go to the large model. Use about" in shown.stderr
    assert "too few rows: they can certify no epsilon up to 0.1" in shown.stderr.splitlines()[-2]
    assert shown.stderr.splitlines()[-1] == "next: label more rows, then kcm run tiny.yaml"


def test_few_rows_get_a_salt_that_fills_every_split(at: Path) -> None:
    """Promise: if the draw leaves a split of a small table without a class, another draw is written."""
    intents(16, 3).to_csv("few.csv", index=False)
    assert init("few.csv").exit_code == 0
    config = load_config(RunConfig, at / "few.yaml")
    assert config.tasks.salt
    build_sequence(config.tasks, config.assets_path, config.seed)


def test_answers_in_the_table_become_a_recorded_large_model(at: Path) -> None:
    frame = intents(400)
    frame.assign(gpt=frame["intent"].where(frame.index % 9 > 0, "intent_0")).to_csv("answered.csv", index=False)
    assert init("answered.csv").exit_code == 0
    config = load_config(RunConfig, at / "answered.yaml")
    assert config.large.adapter == "recorded"
    assert config.large.build([f"intent_{kind}" for kind in range(10)], at).answer([]) == []
    written = (at / "answered.yaml").read_text()
    assert "cannot answer inputs that are not there" in written
    assert "#   kcm run answered.yaml\n" in written
    assert "#   kcm serve" not in written
    assert init("answered.csv", "--large", "none", "--output", "other.yaml").exit_code == 0
    assert load_config(RunConfig, at / "other.yaml").large.adapter == "classifier"
    assert "#   kcm serve other.yaml\n" in (at / "other.yaml").read_text()


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


def test_a_person_is_asked_for_what_is_not_given(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    intents(400).assign(topic=["a", "b"] * 200).to_csv("asked.csv", index=False)
    questions: list[tuple[str, str]] = []

    def ask(question: str, guess: str) -> str:
        questions.append((question, guess))
        return guess

    result = initialise("asked.csv", None, {"label": "topic"}, ask)
    assert questions == [("Column with the text", "utterance"), ("Column with the large model's answers", "none")]
    assert result["columns"]["label"] == "topic"


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_person_at_a_terminal_is_asked(at: Path, is_asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who does not see the question, since standard error is a file, is not asked."""
    monkeypatch.setattr("jobs.commands.init.is_asked", lambda: is_asked)
    intents(400).to_csv("rows.csv", index=False)
    shown = CliRunner().invoke(app, ["init", "rows.csv"], input="\n\n\n")
    assert shown.exit_code == 0, shown.stderr
    assert ("Column with the text" in shown.stderr) == is_asked


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rows.csv", "--label", "intnt"], "no column 'intnt' (--label)"),
        (["nowhere.csv"], "no such file"),
        (["numbers.csv"], "no column looks like labels"),
        (["digits.csv", "--large", "none"], "rows of numbers need a large model's answers"),
        (["wide.csv"], "the table has 2,001 columns, `kcm init` reads at most 2,000"),
        (["rows.csv", "--output", "taken.yaml"], "the file exists already"),
    ],
)
def test_what_cannot_be_done_is_said(at: Path, words: list[str], message: str) -> None:
    intents(100, 2).to_csv("rows.csv", index=False)
    pd.DataFrame({"a": range(100)}).to_csv("numbers.csv", index=False)
    digits(at)
    pd.DataFrame(np.ones((2, 2001))).to_csv("wide.csv", index=False)
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


@pytest.mark.parametrize(
    ("name", "line", "delimiter", "encoding"),
    [
        ("semicolons.csv", "semicolons.csv: cells separated by semicolons, encoding utf-8", ";", "utf-8"),
        ("latin.csv", "latin.csv: cells separated by semicolons, encoding cp1252 (as Latin-1;", ";", "cp1252"),
        ("mark.csv", "cells separated by commas, encoding utf-8 with a byte-order mark, which is", ",", "utf-8-sig"),
        ("excel_unicode.csv", "cells separated by tabs, encoding utf-16", "\t", "utf-16"),
        ("rows.jsonl", "rows.jsonl: encoding utf-8", None, "utf-8"),
    ],
)
def test_delimiter_and_encoding_are_reported_and_configured(
    at: Path, name: str, line: str, delimiter: str | None, encoding: str
) -> None:
    """Promise: delimiter and encoding are said and written into the configuration."""
    WRITERS[name](rows_of(200), at / name)
    assert line in init(name, "--output", "first.yaml").stderr
    source = load_config(RunConfig, at / "first.yaml").tasks.source
    assert (source.delimiter, source.encoding) == (delimiter, encoding)


def test_oddities_of_a_table_are_counted_and_explained(at: Path) -> None:
    """Promise: what is odd in a table is named with counts and what was done."""
    rows: list[dict[str, Any]] = [{"id": n, **row} for n, row in enumerate(rows_of(200))]
    rows[1]["text"] = rows[6]["text"]
    rows[2]["label"] = 7
    rows[3]["label"] = ""
    rows[8]["label"] = f" {rows[8]['label']} "
    rows[4]["text"] = None
    rows[6]["id"] = 5
    lines = [json.dumps(row) for row in rows]
    (at / "odd.jsonl").write_bytes(b"\xef\xbb\xbf" + "\n".join([*lines[:50], "{broken", *lines[50:]]).encode())
    shown = init("odd.jsonl")
    assert shown.exit_code == 0, shown.stderr
    for line in (
        "odd.jsonl: encoding utf-8 with a byte-order mark, which is skipped",
        "column 'id' repeats 1 id: row numbers name the rows instead",
        f"2 labels with fewer than 3 rows ('7' 1, '{rows[8]['label']}' 1): excluded; to use them, label more rows",
        "left out: 1 row, not a JSON object: Expecting property name enclosed in double quotes (row 51)",
        "left out: 1 row, missing label (row 4)",
        "left out: 1 row, missing text (row 5)",
        "2 rows repeat the content of other rows",
        "warning: 1 text with several labels",
        "left out: 2 rows, a label that is not in the label list (row 3, 9)",
        "tasks.max_bad_rows is set to 5: 5 of 201 rows are bad",
    ):
        assert line in shown.stderr, shown.stderr
    config = load_config(RunConfig, at / "odd.yaml")
    assert "7" not in build_sequence(config.tasks, config.assets_path, config.seed).label_names


def test_unlabelled_rows_are_kept_for_the_large_model(at: Path) -> None:
    """Promise: many rows without a label are kept for the large model to teach by."""
    rows: list[dict[str, Any]] = [{"id": n, **row} for n, row in enumerate(rows_of(400))]
    for row in rows[::3]:
        row["label"] = ""
    (at / "few.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shown = init("few.jsonl")
    assert shown.exit_code == 0, shown.stderr
    assert "34% of the rows have no label: they join the train rows" in shown.stderr
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
    assert source_of("hf://datasets/owner/name/plus@v1") == {
        "kind": "hub",
        "id": "owner/name",
        "subset": "plus",
        "revision": "v1",
    }


def test_queue_is_the_label_and_priority_is_not(at: Path) -> None:
    """Promise: the chosen columns are named and a priority is no label where there is a queue."""
    rows = intents(600, 6).rename(columns={"utterance": "body", "intent": "Queue"})
    rows["Priority"] = [("low", "high")[number % 2] for number in range(len(rows))]
    rows.to_csv("tickets.csv", index=False)
    shown = init("tickets.csv", "--yes")
    assert shown.exit_code == 0, shown.stderr
    uses = ("text      'body'", "label     'Queue'", "id        'id'", "not used  'Priority': the input is the text")
    table = "".join(f"  {use}\n" for use in uses)
    assert f"columns:\n{table}choose others by --text, --label and --large\n" in shown.stderr


def test_numbers_are_used_or_the_reason_is_said(at: Path) -> None:
    """A table of numbers: separators of thousands count, other cells do not, and names are written one by one."""
    number = np.arange(400)
    kind = number % 4
    pd.DataFrame(
        {
            "f1": kind * 2 + np.sin(number) * 3,
            "f2": [f"{1000 + n * 7 % 900:,}.5" for n in number],
            "f_inf": np.where(number % 3, number, np.inf),
            "f_weight": [f"0.{n} kg" for n in number],
            "final_cost": kind * 10.5,
            "f_gap": np.where(number == 7, np.inf, number % 11),
            "label": [f"kind {k}" for k in kind],
            "large": [f"kind {k if n % 9 else 0}" for n, k in zip(number, kind, strict=True)],
        }
    ).to_csv("numbers.csv", index=False)
    shown = init("numbers.csv")
    assert shown.exit_code == 0, shown.stderr
    for line in (
        "  numbers   'f1', 'f2', 'final_cost', 'f_gap'\n",
        "  not used  'f_inf': 134 of 400 cells are no finite numbers, such as 'inf'\n",
        "  not used  'f_weight': all cells are no finite numbers, such as '0.0 kg'\n",
        "warning: column 'final_cost' alone reveals every label: delete it",
        "left out: 1 row, 'inf' in column 'f_gap' is not a finite number (row 8)",
    ):
        assert line in shown.stderr, shown.stderr
    assert shown.stderr.count("alone reveals every label") == 1
    config = load_config(RunConfig, at / "numbers.yaml")
    assert vector_columns(config.encoder) == ("f1", "f2", "final_cost", "f_gap")
    assert (config.network.scaling, config.network.basis) == ("first_task", "pspline")  # columns have their own units


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json", "rows.parquet", "rows.xlsx", "rows.csv.gz"])
def test_answers_in_the_table_need_no_id(at: Path, name: str) -> None:
    """text, label and large alone: the rows are numbered, and each finds the answer beside it."""
    rows: list[dict[str, object]] = [
        {"text": f"thing {n} of kind {n % 3}", "label": n % 3, "large": n % 3 if n % 8 else 0} for n in range(300)
    ]
    WRITERS[name](rows, at / name)
    shown = init(name, "--output", "first.yaml")
    assert shown.exit_code == 0, shown.stderr
    config = load_config(RunConfig, at / "first.yaml")
    assert (config.large.id_column, config.large.label_column) == (None, "large")
    records = list(config.tasks.source.build(at).records)
    answers = config.large.build(["0", "1", "2"], at).answer([Item(row.id, Content()) for row in records])
    assert [str(answer.label) for answer in answers] == [str(row["large"]) for row in rows]


def test_bad_rows_of_the_table_have_no_answer(at: Path) -> None:
    """A row that is left out does not move the answers below it, nor stop the run."""
    lines = [f"thing {n} of kind {n % 3},{n % 3},{n % 3 if n % 8 else 0}" for n in range(300)]
    lines[100] += ",more"
    (at / "rows.csv").write_text("\n".join(["text,label,large", *lines]))
    shown = init("rows.csv")
    assert "left out: 1 row, 4 fields instead of 3 (row 101)" in shown.stderr
    config = load_config(RunConfig, at / "rows.yaml")
    items = [Item(row.id, Content()) for row in config.tasks.source.build(at).records]
    answers = config.large.build(["0", "1", "2"], at).answer(items)
    assert [answer.label for answer in answers[99:103]] == [0, None, 2, 0]


def test_missing_values_are_no_classes(at: Path) -> None:
    """NaN, None and NA are rows without a label, unless the label list has them; almost equal labels are named."""
    marks = {5: "NaN", 6: "None", 7: "NA", 8: "1.0", 12: "01", 9: "1.0", 13: "01", 10: "1.0", 14: "01"}
    rows = [{"text": f"thing {n} of kind {n % 3}", "label": marks.get(n, str(n % 3))} for n in range(300)]
    WRITERS["rows.csv"](rows, at / "rows.csv")
    shown = init("rows.csv")
    assert shown.exit_code == 0, shown.stderr
    assert "300 rows" not in shown.stderr
    assert "5 labels: " in shown.stderr
    assert "left out: 3 rows, missing label (row 6, 7, 8)" in shown.stderr
    assert "two labels have almost the same spelling: '1' (" in shown.stderr
    rows[20]["label"] = "rare"
    WRITERS["rows.csv"](rows, at / "again.csv")
    assert "left out: 3 rows, missing label" in init("again.csv").stderr
    assert load_config(RunConfig, at / "again.yaml").tasks.source.labels == ("0", "01", "1", "1.0", "2")


def test_nested_labels_are_refused(at: Path) -> None:
    """Objects are no labels, and the message says which rows hold them."""
    rows = [{"text": f"thing {n} of kind {n % 3}", "label": {"kind": n % 3}} for n in range(300)]
    WRITERS["rows.jsonl"](rows, at / "rows.jsonl")
    shown = init("rows.jsonl")
    assert shown.exit_code == 2
    assert "300 of 300 rows are bad" in shown.stderr
    assert "the label is a list or an object, not a text or a number" in shown.stderr


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
