"""Runs over splits: vectors computed once, a certified route for every collaborator, and paired differences."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from sklearn.datasets import make_blobs

from benchmarks.against_binomial import exact_cut
from benchmarks.over_splits import Kept, KeptEncoder, measured, summary
from benchmarks.routing import crossed, crossed_summary
from kcm.cascade.scored import ScoredOutcomes
from kcm.config import parse_config
from kcm.encoders.text import TextEncoderConfig
from kcm.inputs.content import Content, contents
from pipelines.config import RunConfig

NUM_ROWS = 900


def config_of(folder: Path) -> RunConfig:
    """Blobs far apart, and a large model that is right on nine rows of ten."""
    vectors_ND, label_N = make_blobs(NUM_ROWS, 4, centers=3, cluster_std=0.3, random_state=0)
    texts, labels = [f"row {row}" for row in range(NUM_ROWS)], np.array(["a", "b", "c"])[label_N]
    large = np.where(np.arange(NUM_ROWS) % 10 == 0, "a", labels)
    pd.DataFrame({"id": texts, "text": texts, "label": labels, "large": large}).to_csv(folder / "t.csv", index=False)
    np.savez(folder / "v.npz", keys=texts, vectors=vectors_ND.astype(np.float32))
    values = {
        "name": "blobs",
        "assets_path": folder,
        "storage_path": folder / "storage",
        "collaborators": ["kcm"],
        "tasks": {
            "source": {"kind": "files", "path": str(folder / "t.csv"), "id_column": "id"},
            "scenario": "class_incremental",
            "num_tasks": 1,
        },
        "encoder": {"kind": "pixels"},
        "large": {
            "adapter": "recorded",
            "path": str(folder / "t.csv"),
            "id_column": "id",
            "label_column": "large",
        },
    }
    kind, unused = "tests.benchmarks.test_over_splits:Looked", TextEncoderConfig(model="none")
    kept = Looked(kind=kind, encoder=unused, file=folder / "v.npz")
    return parse_config(RunConfig, values, where="blobs").model_copy(update={"encoder": kept})


class Looked(Kept):
    """Without the assets of the encoder that it stands for."""

    def identity(self, assets_dir: Path) -> str:
        """The file's name."""
        return self.file.name


def test_a_cell_holds_every_side_and_its_crossings(tmp_path: Path) -> None:
    """A small side that is always right is certified to answer everything, by every gate and certificate."""
    config = config_of(tmp_path)
    cell = measured(config, crossed)
    assert set(cell["sides"]) == {"kcm", "linear"}
    assert cell["deployed"] == "kcm"
    for side in cell["sides"].values():
        assert (side["small"], side["saved"]) == (1.0, 1.0)
        assert side["lost"] == pytest.approx(side["large"] - 1)
    assert len(cell["crossed"]) == 8
    assert all(found["saved"] == 1.0 for found in cell["crossed"].values())
    assert sum(cell["rows"].values()) == NUM_ROWS
    figures = summary([cell, cell])
    assert figures["sides"]["linear"]["kcm_minus"]["saved"] == [0, 0, 0]
    assert crossed_summary([cell, cell])["kcm, ours, ours"]["saves_more"] == [0, 0, 0]


def test_vectors_are_looked_up_by_content(tmp_path: Path) -> None:
    """The order of the inputs decides the order of the vectors; an unknown content is an error."""
    np.savez(tmp_path / "v.npz", keys=["a", "b"], vectors=np.eye(2, dtype=np.float32))
    encoder = KeptEncoder(tmp_path / "v.npz", "identity", frozenset({"text"}))
    assert encoder.dim == 2
    assert encoder.encode(contents(["b", "a", "b"])).tolist() == [[0, 1], [1, 0], [0, 1]]
    with pytest.raises(KeyError):
        encoder.encode([Content("c")])


def test_the_exact_cut_passes_its_own_test() -> None:
    """What a sceptic keeps passes the binomial test, and one loss more does not."""
    random = np.random.default_rng(0)
    score_N = random.random(1000)
    small_N = random.random(1000) < score_N
    rows = ScoredOutcomes(score=score_N, small_correct=small_N, large_correct=np.ones(1000, dtype=bool))
    kept_N = score_N > exact_cut(rows, 0.05, 0.08)
    losses = int((~small_N[kept_N]).sum())
    assert binom.cdf(losses, 1000, 0.05) <= 0.08 < binom.cdf(losses + 1, 1000, 0.05)
