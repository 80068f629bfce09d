"""Data sets of the hub become the same tables as files do."""

import io
from pathlib import Path

import datasets
import yaml

from kcm.tasks.readers.hub import HubSource
from kcm.tasks.rows import SourceRow
from tests.fake_hub import FakeHub


def test_class_labels_come_by_name_and_splits_by_theirs(hub: FakeHub, tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "intent": datasets.ClassLabel(names=["no", "yes"])})
    splits = {
        "train": {"text": ["a", "b"], "intent": [1, -1]},
        "validation": {"text": ["c"], "intent": [0]},
        "sft": {"text": ["d"], "intent": [1]},
    }
    data_files = [{"split": split, "path": f"{split}.parquet"} for split in splits]
    card = {"configs": [{"config_name": "default", "data_files": data_files}]}
    hub.files["README.md"] = f"---\n{yaml.safe_dump(card)}---\n".encode()
    for split, columns in splits.items():
        datasets.Dataset.from_dict(columns, features=features).to_parquet(file := io.BytesIO())
        hub.files[f"{split}.parquet"] = file.getvalue()
    rows = {row.text: row for row in HubSource(id="owner/name").build(tmp_path).records}
    assert rows == {
        "a": SourceRow("train-1", "a", "yes", split="train"),
        "b": SourceRow("train-2", "b", None, split="train"),
        "c": SourceRow("validation-1", "c", "no", split="validation"),
        "d": SourceRow("sft-1", "d", "yes"),
    }
