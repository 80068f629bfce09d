"""Data sets of the hub become the same tables as files do."""

import io
import json
import subprocess
import sys
from pathlib import Path

import datasets
import yaml

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
    assert _rows("owner/name", tmp_path) == {
        "a": ["train-1", "yes", "train"],
        "b": ["train-2", None, "train"],
        "c": ["validation-1", "no", "validation"],
        "d": ["sft-1", "yes", ""],
    }


def _rows(data_set: str, tmp_path: Path) -> dict[str, list[str | None]]:
    """Id, label and split by text, read in a process whose clients know this test's hub."""
    script = (
        "import json, pathlib, sys; from kcm.tasks.readers.hub import HubSource;"
        "rows = HubSource(id=sys.argv[1]).build(pathlib.Path(sys.argv[2])).records;"
        "print(json.dumps({row.text: [row.id, row.label, row.split] for row in rows}))"
    )
    command = [sys.executable, "-c", script, data_set, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    rows: dict[str, list[str | None]] = json.loads(done.stdout.splitlines()[-1])
    return rows
