from pathlib import Path
from typing import Any

import pytest
import torch

from kcm.bundle.sealed_folder import SealedFolder, sealing, write_json, write_state, write_tensors
from kcm.errors import ArtefactError

MANIFEST = "manifest.json"


def sealed(folder: Path, state: dict[str, object] | None = None) -> SealedFolder:
    with sealing(folder, MANIFEST, 1) as draft:
        write_json(draft / "plain.json", {"a": 1})
        write_tensors(draft / "weights.safetensors", {"w": torch.arange(6.0).view(2, 3).T})
        write_state(draft / "state", state or {})
    return SealedFolder(folder, MANIFEST, 1)


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    files = sealed(tmp_path / "sealed")
    assert files.json("plain.json") == {"a": 1}
    assert torch.equal(files.tensors("weights.safetensors")["w"], torch.tensor([[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]))
    assert files.has("plain.json")
    assert not files.has("absent.json")


def test_a_nested_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state: dict[str, Any] = {
        "memory": {"ids": ["x", "ü"], "key": 2**62, "features": torch.randn(2, 3), "none": None, "flag": True},
        "memory.features": torch.tensor([1, 2]),
        "steps": [1, 2.5, {"deep": torch.tensor(3.0)}],
        "empty": {},
        "nan": torch.tensor([float("nan")]),
    }
    found: dict[str, Any] = sealed(tmp_path / "sealed", state).state("state")
    assert list(found) == list(state)
    assert found["empty"] == {}
    assert {k: v for k, v in found["memory"].items() if k != "features"} == {
        k: v for k, v in state["memory"].items() if k != "features"
    }
    assert torch.equal(found["memory"]["features"], state["memory"]["features"])
    assert torch.equal(found["memory.features"], state["memory.features"])
    assert found["steps"][:2] == [1, 2.5]
    assert found["steps"][2]["deep"].item() == 3.0
    assert found["nan"].isnan().all()


def test_a_state_that_would_need_a_pickle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"may not hold set, at 'a\.b'"):
        sealed(tmp_path / "sealed", {"a": {"b": {1}}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["plain.json", "weights.safetensors", "state/state.json"])
def test_a_changed_file_is_named(tmp_path: Path, name: str) -> None:
    path = sealed(tmp_path / "sealed").folder / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=f"differs from its manifest.*{name}"):
        SealedFolder(tmp_path / "sealed", MANIFEST, 1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (sealed(tmp_path / "sealed").folder / "plain.json").unlink()
    with pytest.raises(ArtefactError, match=r"a file is missing .*plain\.json"):
        SealedFolder(tmp_path / "sealed", MANIFEST, 1)


def test_another_format_and_another_folder_are_distinguished(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "sealed").folder
    with pytest.raises(ArtefactError, match="written in format 1, this version reads 2"):
        SealedFolder(folder, MANIFEST, 2)
    with pytest.raises(ArtefactError, match=r"no manifest\.json here"):
        SealedFolder(tmp_path, MANIFEST, 1)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(ArtefactError, match="the manifest is damaged"):
        SealedFolder(folder, MANIFEST, 1)


def test_a_sealed_folder_is_never_changed(tmp_path: Path) -> None:
    before = sealed(tmp_path / "sealed").digest
    with pytest.raises(ArtefactError, match="the folder exists already"):
        sealed(tmp_path / "sealed", {"other": 1})
    assert SealedFolder(tmp_path / "sealed", MANIFEST, 1).digest == before
