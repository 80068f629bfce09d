"""Promise: a bundle opens nothing outside itself, the assets and the hub's cache that nobody here has named."""

import json
import os
import pickle
from pathlib import Path

import pytest

from kcm.assets import trusted_paths
from kcm.assets.resolve import resolve
from kcm.assets.trusted_paths import TRUSTED_PLACES, BundleName, may_open
from kcm.bundle.bundle import Bundle
from kcm.bundle.frozen_models import require_models
from kcm.encoders.text import TextEncoderConfig
from kcm.errors import AssetError, KcmError
from kcm.large.adapters.recorded import RecordedConfig
from tests.kcm.bundle.test_bundle import LABELS, bundle
from tests.kcm.bundle.test_crafted import edited
from tests.tiny_bert import save_bert

UNNAMED = "which is not trusted here"


@pytest.fixture(autouse=True)
def nobody_trusts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(TRUSTED_PLACES, "")
    monkeypatch.setattr(trusted_paths, "_NAMED_HERE", set())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "assets").mkdir()


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A folder outside in which opening any file would never end."""
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in ("config.json", "modules.json", "model.safetensors", "answers.csv"):
        os.mkfifo(folder / name)
    return folder


def refusal(folder: Path, assets: Path) -> str:
    with pytest.raises(KcmError) as refused:
        require_models(Bundle.read(folder), assets)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("file", ["encoder.json", "large.json"])
@pytest.mark.parametrize("way", ["absolute", "relative", "home", "through assets", "link"])
def test_no_folder_outside_is_opened(
    tmp_path: Path, trap: Path, monkeypatch: pytest.MonkeyPatch, file: str, way: str
) -> None:
    """Promise: whatever way the name leads out, it is refused in one line before anything is opened."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(trap.parent))
    folder = bundle().write(tmp_path / "bundle")
    (folder / "link").symlink_to(trap)
    name = {
        "absolute": str(trap),
        "relative": "../outside",
        "home": "~/outside",
        "through assets": "a/../../outside",
        "link": str(folder / "link"),
    }[way]
    if file == "encoder.json":
        edited(folder, file, lambda content: content["config"].update(model=name))
    else:
        monkeypatch.setattr(
            TextEncoderConfig, "identity", lambda self, assets: resolve(self.model, assets) and "e" * 64
        )
        good = save_bert(tmp_path / "assets" / "good", ("a",))
        edited(folder, "encoder.json", lambda content: content["config"].update(model=str(good)))
        edited(folder, file, lambda content: content["config"]["encoder"].update(model=name))
    assert UNNAMED in refusal(folder, tmp_path / "assets")


def test_a_folder_of_the_working_directory_is_no_asset(
    tmp_path: Path, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: the id of a model is not taken for a folder that happens to lie where the command is run."""
    monkeypatch.chdir(trap.parent)
    folder = bundle(encoder=TextEncoderConfig(model="outside")).write(tmp_path / "bundle")
    assert "model 'outside' is neither in the assets nor in the hub's cache" in refusal(folder, tmp_path / "assets")


def test_places_that_a_configuration_names_may_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: the model that a run was given loads with its bundle, in this process and in later ones."""
    model, assets = save_bert(tmp_path / "model", ("a", "cat")), tmp_path / "assets"
    named = BundleName(str(model), tmp_path / "bundle")
    with pytest.raises(AssetError, match=UNNAMED):
        resolve(named, assets)
    monkeypatch.setenv(TRUSTED_PLACES, f"/somewhere{os.pathsep}{model}")
    assert resolve(named, assets) == model
    monkeypatch.setenv(TRUSTED_PLACES, "")
    resolve(str(model), assets)
    (tmp_path / "others").mkdir()
    assert resolve(named, tmp_path / "others") == model  # this process, with other assets
    trusted_paths._NAMED_HERE.clear()
    assert resolve(named, assets) == model  # a later one
    assert (assets / ".places").read_text() == f"{model}\n"


def test_a_bundle_name_survives_its_way_to_another_process() -> None:
    """Promise: what a replica receives still says that a bundle gave it."""
    again = pickle.loads(pickle.dumps(BundleName("/outside", Path("/bundle"))))
    assert again == "/outside"
    assert again.folder == Path("/bundle")
    assert not may_open(again, Path("/assets"))


def test_recorded_answers_outside_are_not_opened(tmp_path: Path, trap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a bundle's recorded answers are read where a configuration has named the file, and nowhere else."""
    large = RecordedConfig(path=str(trap / "answers.csv"))
    monkeypatch.setattr(TextEncoderConfig, "identity", lambda self, assets: "e" * 64)
    folder = bundle(large=large, large_head=None).write(tmp_path / "bundle")
    assert UNNAMED in refusal(folder, tmp_path / "assets")
    answers = tmp_path / "answers.csv"
    answers.write_text("id,label\n1,good\n")
    edited(folder, "large.json", lambda content: content["config"].update(path=str(answers)))
    assert UNNAMED in refusal(folder, tmp_path / "assets")
    named = RecordedConfig(path=str(answers)).identity(LABELS, tmp_path / "assets")
    edited(folder, "large.json", lambda content: content.update(identity=named))
    require_models(Bundle.read(folder), tmp_path / "assets")
    assert json.loads((folder / "large.json").read_text())["config"]["path"] == str(answers)
