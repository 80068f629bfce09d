"""The hub's own client against a hub on this machine: models and data sets arrive, or an error says why not."""

import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from kcm.assets import hub as hub_client
from kcm.errors import AssetError
from tests.fake_hub import COMMIT


def test_other_model_is_downloaded_pinned_without_pickles(hub, tmp_path):
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
    assert any(COMMIT in request for request in hub.requests)


def test_a_data_set_that_is_nowhere_says_so(monkeypatch, tmp_path):
    def fails(*_, **__):
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    with pytest.raises(AssetError, match="the hub failed: Couldn't reach"):
        hub_client.export_data_set("owner/name", None, None, folder=tmp_path)


def _resolved_elsewhere(model: str, tmp_path: Path) -> Path:
    """`resolve` in a process that reads this test's hub address; the client reads it once, when it is imported."""
    imports = "from pathlib import Path; from kcm.assets.resolve import resolve"
    script = f"{imports}; print(resolve({model!r}, Path({str(tmp_path)!r})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240)
    return Path(done.stdout.strip().splitlines()[-1])


def test_a_data_set_is_exported_split_by_split(tmp_path):
    # A folder stands in for the id: the loader takes both, and the hub is not needed for it.
    (tmp_path / "set").mkdir()
    (tmp_path / "out").mkdir()
    for split in ("train", "test"):
        (tmp_path / "set" / f"{split}.csv").write_text(f"text,label\n{split} row,a\n")
    files = hub_client.export_data_set(str(tmp_path / "set"), None, None, folder=tmp_path / "out")
    assert {split: pq.read_table(path).to_pylist() for split, path in files.items()} == {
        split: [{"text": f"{split} row", "label": "a"}] for split in ("train", "test")
    }
