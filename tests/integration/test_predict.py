"""Batch prediction of real files on a real cluster."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.cascade.runtime import Answer, Input, load_cascade
from kcm.content import Content
from kcm.errors import ArtefactError, DataError
from pipelines.cluster import ClusterConfig
from pipelines.predict import predict
from pipelines.progress import Reporter

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def run(assets_dir: Path) -> Callable[..., dict[str, Any]]:
    """`predict` without the parts that are alike in every test."""

    def run_predict(bundle: Path, source: Path, target: Path, text: str = "text", **options: Any) -> dict[str, Any]:
        reporter = Reporter(Console(quiet=True))
        cluster = ClusterConfig(num_encoders=2)
        return predict(
            bundle, source, target, text, cluster=cluster, assets_dir=assets_dir, reporter=reporter, **options
        )

    return run_predict


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    pd.DataFrame(rows).to_csv(path, index=False)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


WRITE = {".csv": write_csv, ".jsonl": write_jsonl, ".parquet": write_parquet}
READ = {
    ".csv": lambda path: pd.read_csv(path),
    ".jsonl": lambda path: pd.read_json(path, lines=True),
    ".parquet": lambda path: pd.read_parquet(path),
}


@pytest.mark.parametrize("suffix", WRITE)
def test_a_file_is_answered_as_the_cascade_answers_in_process(
    quick_bundle: Callable[..., Path],
    run: Callable[..., dict[str, Any]],
    sentences: list[str],
    assets_dir: Path,
    tmp_path: Path,
    suffix: str,
) -> None:
    bundle = quick_bundle()
    rows = [{"number": i, "text": text, "label": "true one"} for i, text in enumerate(sentences[:120])]
    rows[7]["text"] = "  "
    WRITE[suffix](tmp_path / f"in{suffix}", rows)
    result = run(bundle, tmp_path / f"in{suffix}", tmp_path / f"out{suffix}")

    found = READ[suffix](tmp_path / f"out{suffix}")
    answers = ["kcm_label", "confidence", "gate_score", "route", "cost_s", "error"]
    assert list(found.columns) == ["number", "text", "label", "id", *answers]
    assert found["number"].tolist() == list(range(120))
    assert set(found["label"]) == {"true one"}
    assert found["error"][7] == "no text"
    assert pd.isna(found["route"][7])

    good = found.drop(index=7)
    assert good["error"].isna().all()
    expected = load_cascade(bundle, assets_dir).answer([Input(Content(text)) for text in good["text"]])
    close = 0
    for (_, row), answer in zip(good.iterrows(), expected, strict=True):
        assert isinstance(answer, Answer)
        assert answer.threshold is not None
        assert row["gate_score"] == pytest.approx(answer.gate_score, abs=1e-4)
        if abs(answer.gate_score - answer.threshold) < 1e-4:
            close += 1
            continue
        assert (row["kcm_label"], row["route"]) == (answer.label, answer.route)
    assert close <= 4
    assert result["rows"] == 120
    assert result["routes"] == {"error": 1, **good["route"].value_counts().to_dict()}


def test_rows_stay_in_order_over_many_blocks_and_actors(
    quick_bundle: Callable[..., Path], run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Texts of two lengths take the actors different times, so that blocks would come back out of order."""
    rows = [{"id": f"row-{i}", "text": f"{i} " + ("long words " * 40 if i // 200 % 2 else "")} for i in range(800)]
    write_jsonl(tmp_path / "in.jsonl", rows)
    run(quick_bundle(policy=Policy(decision=KEEP_ALL)), tmp_path / "in.jsonl", tmp_path / "out.csv")
    found = pd.read_csv(tmp_path / "out.csv")
    assert found["id"].tolist() == [row["id"] for row in rows]
    assert found["route"].tolist() == ["small"] * 800


def test_a_row_of_an_unknown_task_is_at_fault(
    quick_bundle: Callable[..., Path], run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    write_csv(tmp_path / "in.csv", [{"text": "a", "domain": "films"}, {"text": "b", "domain": "flims"}])
    run(quick_bundle(), tmp_path / "in.csv", tmp_path / "out.csv", task_column="domain")
    assert pd.read_csv(tmp_path / "out.csv", keep_default_na=False)["error"].tolist() == ["", "no such task: flims"]


def test_what_cannot_work_is_said_before_anything_is_computed(
    quick_bundle: Callable[..., Path], run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    bundle, source = quick_bundle(), tmp_path / "in.csv"
    write_csv(source, [{"text": "a"}])
    for target, error, message in [
        (source, DataError, "would replace the input"),
        (tmp_path / "out.xlsx", DataError, "unknown suffix"),
        (tmp_path / "absent" / "out.csv", ArtefactError, "no such folder"),
    ]:
        with pytest.raises(error, match=message):
            run(bundle, source, target)
    with pytest.raises(DataError, match=r"no column 'body'.*Did you mean 'text'"):
        run(bundle, source, tmp_path / "out.csv", "body")
    with pytest.raises(ArtefactError, match="the encoder is another one"):
        run(quick_bundle(encoder_identity="0" * 64), source, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_file_without_rows_becomes_a_file_without_rows(
    quick_bundle: Callable[..., Path], run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("text,stars\n", encoding="utf-8")
    assert run(quick_bundle(), tmp_path / "in.csv", tmp_path / "out.parquet")["rows"] == 0
    assert pq.read_table(tmp_path / "out.parquet").column_names[:3] == ["text", "stars", "id"]
