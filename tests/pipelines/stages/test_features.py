"""Features are written in the order of the rows, and a NaN is named by its row instead of being trained on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from kcm.encoders import PixelsConfig, TextEncoderConfig
from kcm.errors import DataError
from kcm.learners.stream import list_column
from pipelines.batch.pool import ROW
from pipelines.stages import features
from pipelines.stages.features import Encoding, write_task
from pipelines.store.features import FeaturesArtefact, feature_matrix, read_task, task_file

ROWS = pa.table(
    {
        "id": ["a", "b", "c"],
        "text": ["one", "two", "three"],
        "image": [b"", b"", b""],
        "label": [0, 1, 0],
        "group": ["g", "", "g"],
        "split": ["train", "train", "test"],
    }
)


def encoded(values: np.ndarray, fault: str = "") -> ds.Dataset:
    """Parts as actors leave them: rows 10 to 12 of the pass, longest text first; `fault` is that of the second row."""
    order = [2, 0, 1]
    columns = {ROW: [10 + row for row in order], "features": list_column(values[order]), "seconds": [0.3, 0.1, 0.2]}
    return ds.dataset(pa.table(columns | {"fault": ["", "", fault]}))


def test_rows_get_their_own_features_whatever_order_they_were_encoded_in(tmp_path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    write_task(task_file(tmp_path, 0), ROWS, encoded(values), 10)
    written = read_task(tmp_path, 0)
    assert written["id"].to_pylist() == ["a", "b", "c"]
    np.testing.assert_array_equal(feature_matrix(written), values)
    assert written["seconds"].to_pylist() == [0.1, 0.2, 0.3]
    assert written["group"].to_pylist() == ["g", None, "g"]
    assert read_task(tmp_path, 0, split="test")["id"].to_pylist() == ["c"]


def test_a_nan_feature_stops_the_stage_and_names_its_row(tmp_path) -> None:
    values = np.ones((3, 2), dtype=np.float32)
    values[1, 0] = np.nan
    with pytest.raises(DataError, match="NaN for 1 rows: b"):
        write_task(task_file(tmp_path, 0), ROWS, encoded(values), 10)
    with pytest.raises(DataError, match=r"for 1 rows: b \(the image is damaged\)"):
        write_task(task_file(tmp_path, 0), ROWS, encoded(values, "the image is damaged"), 10)
    assert not list(tmp_path.iterdir())


def written_by(encoder, folder, monkeypatch) -> tuple[FeaturesArtefact, list]:
    """The artefact that an encoder's rows make, and what the actors were given."""
    given = []

    def encode_rows(context, encoder, inputs, scratch, bar):
        given.append(encoder)
        parts = pa.table({ROW: range(3), "features": list_column(np.ones((3, 2), np.float32)), "seconds": [0.1] * 3})
        return ds.dataset(parts.append_column("fault", pa.array([""] * 3)))

    monkeypatch.setattr(features, "encode_rows", encode_rows)
    sequence = SimpleNamespace(load=lambda: SimpleNamespace(tasks=["t"], rows=lambda number: ROWS))
    attempt = SimpleNamespace(context=SimpleNamespace(assets_path=folder), folder=folder, scratch=folder, bar=None)
    Encoding(encoder=encoder, identity="i", device="cpu").write(attempt, sequence)
    return FeaturesArtefact("features", folder.name, folder), given


@pytest.mark.parametrize("faster", ["torch", "onnx"])
def test_auto_is_resolved_once_for_all_actors_and_recorded(faster, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(TextEncoderConfig, "_faster", lambda self, assets_dir: faster)
    artefact, given = written_by(TextEncoderConfig(model="m"), tmp_path, monkeypatch)
    assert [encoder.in_use for encoder in given] == [faster]
    assert artefact.runtime == faster


def test_an_encoder_without_a_choice_records_none_and_artefacts_of_before_were_made_by_torch(
    tmp_path, monkeypatch
) -> None:
    artefact, _ = written_by(PixelsConfig(), tmp_path, monkeypatch)
    assert artefact.runtime is None
    (tmp_path / "runtime.json").unlink()
    assert artefact.runtime == "torch"
