"""`kcm run --append`: a table becomes the next task of the newest version's sequence."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from kcm.certification.ledger import Ledger
from kcm.config import parse_config
from kcm.errors import KcmError
from pipelines.config import RunConfig
from pipelines.progress import Reporter
from pipelines.run import run
from pipelines.store.artefact import ArtefactStore
from pipelines.store.sequence import SequenceArtefact
from pipelines.training.artefacts import TunedArtefact

VECTORS = {"kind": "precomputed", "columns": ["f_*"]}
QUIET = Reporter(Console(quiet=True))
NUM_ROWS, DIM = 500, 8


def table(folder: Path, name: str, seed: int, labels: str = "abc") -> str:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, len(labels), NUM_ROWS)
    means = np.random.default_rng(9).normal(size=(6, DIM)) * 2
    values_ND = means[["abcdef".index(labels[n]) for n in numbers]] + rng.normal(size=(NUM_ROWS, DIM))
    columns = {f"f_{column}": values_ND[:, column].astype(np.float32) for column in range(DIM)}
    named = [labels[n] for n in numbers]
    ids = [f"{name}-{row}" for row in range(NUM_ROWS)]
    pd.DataFrame(columns | {"id": ids, "label": named, "gpt": named}).to_parquet(folder / f"{name}.parquet")
    return str(folder / f"{name}.parquet")


def config_of(folder: Path, storage: str, path: Any, answers: str) -> RunConfig:
    source = {"kind": "files", "path": path, "text_column": None, "id_column": "id"}
    values = {
        "name": "grown",
        "storage_path": str(folder / storage),
        "assets_path": str(folder),
        "tasks": {"source": source, "scenario": "domain_incremental", "grows": True, "salt": 1},
        "encoder": VECTORS,
        "large": {"adapter": "recorded", "path": answers, "id_column": "id", "label_column": "gpt"},
        "collaborators": ["kcm"],
        "network": {"mixing": 16},
        "tune": {"gates": ["confidence"], "scopes": ["global"]},
    }
    return parse_config(RunConfig, values)


def weights(config: RunConfig) -> dict[str, torch.Tensor]:
    newest = ArtefactStore(config.storage_path).finished("tune")[0].as_a(TunedArtefact)
    return newest.load("kcm").collaborator.state_dict()


def test_appended_tables_end_where_one_run_over_all_ends(tmp_path: Path) -> None:
    """Promise: the result is that of one run; each append is the next look; a table that is known changes nothing."""
    one, two = table(tmp_path, "one", 1), table(tmp_path, "two", 2)
    pd.concat([pd.read_parquet(one), pd.read_parquet(two)]).to_parquet(tmp_path / "answers.parquet")
    config = config_of(tmp_path, "grown", {"one": one}, one)
    first = run(config, reporter=QUIET)
    grown = run(
        config_of(tmp_path, "grown", {"one": one}, str(tmp_path / "answers.parquet")), reporter=QUIET, append=two
    )
    whole_config = config_of(tmp_path, "whole", {"one": one, "two": two}, str(tmp_path / "answers.parquet"))
    whole = run(whole_config, reporter=QUIET)

    assert grown["kcm"]["accuracy_matrix"] == whole["kcm"]["accuracy_matrix"]
    assert [len(row) for row in grown["kcm"]["accuracy_matrix"]] == [2, 2]
    for name, tensor in weights(whole_config).items():
        torch.testing.assert_close(weights(config)[name], tensor, atol=1e-6, rtol=1e-5)
    looks = Ledger(ArtefactStore(config.storage_path).ledger).looks()
    assert [look.number for look in looks] == [1, 2]
    assert [round(look.spend / look.delta, 3) for look in looks] == [0.608, 0.152]
    assert (first["mlflow"]["version"], grown["mlflow"]["version"]) == ("1", "2")

    again = run(config, reporter=QUIET, append=two)
    assert again["mlflow"]["version"] == "2"
    assert len(Ledger(ArtefactStore(config.storage_path).ledger).looks()) == 2


def test_an_append_needs_a_version_and_keeps_earlier_labels_in_place(tmp_path: Path) -> None:
    one, new = table(tmp_path, "one", 1), table(tmp_path, "new", 2, "def")
    config = config_of(tmp_path, "s", {"one": one}, one)
    with pytest.raises(KcmError, match="no version to append to"):
        run(config, reporter=QUIET, append=new)
    run(config, reporter=QUIET)
    pd.concat([pd.read_parquet(one), pd.read_parquet(new)]).to_parquet(tmp_path / "answers.parquet")
    result = run(config_of(tmp_path, "s", {"one": one}, str(tmp_path / "answers.parquet")), reporter=QUIET, append=new)
    matrix = result["kcm"]["accuracy_matrix"]
    assert matrix[1][0] > 0.8
    assert matrix[1][1] > 0.8
    names = ArtefactStore(config.storage_path).finished("tasks")[0].as_a(SequenceArtefact).names
    assert (names.tasks, names.labels) == (("one", "new"), ("a", "b", "c", "d", "e", "f"))
