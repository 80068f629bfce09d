"""Data sets of the hub become the same tables as files do."""

import datasets

from kcm.assets import hub
from kcm.tasks.readers.hub import HubSource
from kcm.tasks.rows import SourceRow


def test_class_labels_come_by_name_and_splits_by_theirs(monkeypatch, tmp_path):
    def export(repo, subset, revision, *, folder, **_):
        features = datasets.Features(
            {"text": datasets.Value("string"), "intent": datasets.ClassLabel(names=["no", "yes"])}
        )
        rows = {
            "train": {"text": ["a", "b"], "intent": [1, -1]},
            "validation": {"text": ["c"], "intent": [0]},
            "sft": {"text": ["d"], "intent": [1]},
        }
        for split, columns in rows.items():
            datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")
        return {split: folder / f"{split}.parquet" for split in rows}

    monkeypatch.setattr(hub, "export_data_set", export)
    source = HubSource(id="owner/name").build(tmp_path)
    assert list(source.records) == [
        SourceRow("train-1", "a", "yes", split="train"),
        SourceRow("train-2", "b", None, split="train"),
        SourceRow("validation-1", "c", "no", split="validation"),
        SourceRow("sft-1", "d", "yes"),
    ]
