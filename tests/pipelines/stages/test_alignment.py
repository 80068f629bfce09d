"""Alignment heads are fitted on rows that no other network learns from, so every label needs further rows."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kcm.errors import DataError
from kcm.inputs.labels import UNLABELLED
from kcm.tasks.readers.pairs import MATCH
from kcm.tasks.sequence import write_description
from pipelines.stages import alignment
from pipelines.stages.alignment import Heads, Towers


def test_a_label_without_rows_for_the_networks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: an unlabelled row does not count as a row of a label."""
    labels = [0, 1, 0, UNLABELLED]
    columns = {name: pa.array([f"{name} {row}" for row in range(4)]) for name in ("id", "text", "image", "group")}
    rows = pa.table(columns | {"label": labels, "split": ["train"] * 4})
    write_description(tmp_path, {"tasks": [{"name": "pairs", "label_names": [MATCH, "none"]}], "summary": {}})
    sequence: Any = SimpleNamespace(
        names=SimpleNamespace(labels=(MATCH, "none"), tasks=("pairs",)),
        task=lambda number, split=None: rows,
        file=lambda name: tmp_path / name,
    )
    monkeypatch.setattr(alignment, "_drawn", lambda rows, *_: np.isin(rows["id"].to_pylist(), ["id 0", "id 1"]))
    for name in ("encoded", "feature_matrix", "fit_alignment", "save_aligned"):
        monkeypatch.setattr(alignment, name, lambda *_: None)
    towers = Towers.model_construct(identities=("", ""), share=0.5, config=SimpleNamespace(image=None, text=None))
    attempt: Any = SimpleNamespace(scratch=tmp_path, folder=tmp_path / "made")
    attempt.folder.mkdir()
    heads = Heads.model_construct(towers={"encoder": towers}, device="cpu", seed=0)
    with pytest.raises(DataError, match="task 'pairs' has labels without a train row that the alignment head leaves"):
        heads.write(attempt, sequence)
