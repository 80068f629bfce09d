"""The hub's own client against a hub on this machine: models and data sets arrive, silence ends in an error."""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kcm.assets import hub as hub_client
from kcm.errors import AssetError
from tests.fake_hub import COMMIT


def test_other_model_is_downloaded_pinned_without_pickles(hub, monkeypatch, tmp_path):
    hub.files = {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"pickle"}
    folder = _resolved_elsewhere("owner/name", tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (tmp_path / ".revisions" / "owner--name").read_text() == f"{COMMIT}\n"

    cache = tmp_path / "hub-cache" / "hub" / "models--owner--name"
    (cache / "refs" / "main").write_text("f" * 40)  # another program has followed the branch since
    assert _resolved_elsewhere("owner/name", tmp_path) == folder
    shutil.rmtree(cache)
    hub.requests.clear()
    assert _resolved_elsewhere("owner/name", tmp_path) == folder
    assert f"/api/models/owner/name/revision/{COMMIT}" in hub.requests


def test_a_silent_hub_is_left_behind_and_named(hub, monkeypatch, tmp_path):
    monkeypatch.setattr(hub_client, "START_SECONDS", 0.5)
    monkeypatch.setattr(hub_client, "CONNECT_SECONDS", 0.5)
    hub.mood = "hang"
    with pytest.raises(AssetError, match=r"did not answer within 1 s \(owner/name\)"):
        hub_client.commit_of("owner/name", "model", None)


def test_a_data_set_that_is_nowhere_says_so(hub, tmp_path):
    hub.mood = "fail"
    with pytest.raises(AssetError, match=r"the hub failed.*cache holds no copy"):
        hub_client.export_data_set("owner/name", None, None, folder=tmp_path)


def _resolved_elsewhere(model: str, tmp_path: Path) -> Path:
    """`resolve` in a process that reads this test's hub address; the client reads it once, when it is imported."""
    script = (
        f"from pathlib import Path; from kcm.assets import resolve; print(resolve({model!r}, Path({str(tmp_path)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240)
    return Path(done.stdout.strip().splitlines()[-1])


def test_a_data_set_is_exported_split_by_split(hub, tmp_path):
    # A folder stands in for the id: the loader takes both, and the hub is not needed for it.
    hub.mood = "fail"
    (tmp_path / "set").mkdir()
    (tmp_path / "out").mkdir()
    for split in ("train", "test"):
        (tmp_path / "set" / f"{split}.csv").write_text(f"text,label\n{split} row,a\n")
    files = hub_client.export_data_set(str(tmp_path / "set"), None, None, folder=tmp_path / "out")
    assert {split: pq.read_table(path).to_pylist() for split, path in files.items()} == {
        split: [{"text": f"{split} row", "label": "a"}] for split in ("train", "test")
    }
