"""Promise: whoever wrote a model's folder runs nothing, is asked about by nobody, and leads nowhere else."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from kcm.encoders.image import ImageEncoderConfig
from kcm.encoders.image_text import ImageTextConfig
from kcm.encoders.text import TextEncoderConfig
from kcm.errors import AssetError, ConfigError, KcmError
from kcm.large.adapters.zero_shot import ZeroShotConfig
from tests.tiny_bert import save_bert
from tests.tiny_clip import save_clip

PARTS = {
    "AutoConfig": "crafted.CraftedConfig",
    "AutoModel": "crafted.CraftedModel",
    "AutoTokenizer": ["crafted.CraftedTokenizer", None],
    "AutoImageProcessor": "crafted.CraftedProcessor",
    "AutoProcessor": "crafted.CraftedProcessor",
}


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that crafted code would write."""
    return tmp_path / "it ran"


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Standard input would say yes to every question; there is none."""
    asked: list[str] = []

    class Stdin:
        def readline(self) -> str:
            asked.append("y")
            return "y\n"

    monkeypatch.setattr(sys, "stdin", Stdin())
    yield
    assert not asked


def craft(folder: Path, mark: Path, *files: str) -> Path:
    """Make JSON files of a model name code that the folder brings along, for a model that no library knows."""
    (folder / "crafted.py").write_text(f"open({str(mark)!r}, 'w')\n")
    for name in files:
        content = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
        content |= {"auto_map": PARTS, "trust_remote_code": True}
        if name == "config.json":
            content |= {"model_type": "crafted", "architectures": ["CraftedModel"]}
        else:
            content |= {"tokenizer_class": "CraftedTokenizer", "image_processor_type": "CraftedProcessor"}
        (folder / name).write_text(json.dumps(content))
    return folder


ENCODERS: dict[str, Callable[[Path], TextEncoderConfig | ImageEncoderConfig | ImageTextConfig]] = {
    "auto": lambda folder: TextEncoderConfig(model=str(folder)),
    "mean": lambda folder: TextEncoderConfig(model=str(folder), pooling="mean"),
    "torch": lambda folder: TextEncoderConfig(model=str(folder), pooling="cls", runtime="torch"),
    "image": lambda folder: ImageEncoderConfig(model=str(folder), side=8),
    "dual image": lambda folder: ImageTextConfig(model=str(folder), max_length=8, output="image"),
    "dual text": lambda folder: ImageTextConfig(model=str(folder), max_length=8, output="text"),
}


def refusal(encoder: TextEncoderConfig | ImageEncoderConfig | ImageTextConfig, folder: Path) -> str:
    """Why the encoder cannot be loaded, in one line; empty if it can."""
    try:
        encoder.load(folder / "assets")
    except KcmError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_code_of_a_folder_is_not_run(tmp_path: Path, mark: Path, kind: str, file: str) -> None:
    """Promise: whichever file names the code, nothing runs; the refusal is one line with a hint."""
    folder = tmp_path / "model"
    if "dual" in kind:
        save_clip(folder, ("a", "cat"), max_tokens=16)
    else:
        save_bert(folder, ("a", "cat"))
        (folder / "preprocessor_config.json").write_text("{}")
    craft(folder, mark, file)
    said = refusal(ENCODERS[kind](folder), tmp_path)
    assert "never run" in said if file == "config.json" else "\n" not in said
    assert not mark.exists()


def test_code_below_a_large_model_is_not_run(tmp_path: Path, mark: Path) -> None:
    """Promise: the large model's encoder is loaded by the same helper."""
    folder = craft(save_bert(tmp_path / "model", ("a", "cat")), mark, "config.json")
    with pytest.raises(AssetError, match="never run"):
        ZeroShotConfig(encoder=TextEncoderConfig(model=str(folder))).build(("a", "b"), tmp_path)
    assert not mark.exists()


def sentence_model(folder: Path, *modules: tuple[str, str]) -> Path:
    """A folder of sentence-transformers whose first module is BERT."""
    save_bert(folder / "bert", ("a", "cat"))
    listed = [("bert", "sentence_transformers.models.Transformer"), *modules]
    rows = [{"idx": n, "name": str(n), "path": path, "type": kind} for n, (path, kind) in enumerate(listed)]
    (folder / "modules.json").write_text(json.dumps(rows))
    return folder


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    """Promise: a module with pytorch_model.bin alone is refused, though the others have safetensors."""
    folder = sentence_model(tmp_path / "model", ("dense", "sentence_transformers.models.Dense"))
    (folder / "dense").mkdir()
    torch.save({}, folder / "dense" / "pytorch_model.bin")
    with pytest.raises(AssetError, match=r"pytorch_model\.bin is a pickle"):
        TextEncoderConfig(model=str(folder)).load(tmp_path / "assets")


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    """Promise: a folder does not lead to another model by adapter_config.json."""
    folder = save_bert(tmp_path / "model", ("a", "cat"))
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/elsewhere"}))
    with pytest.raises(AssetError, match="names another model"):
        TextEncoderConfig(model=str(folder)).load(tmp_path / "assets")


@pytest.mark.parametrize("pooling", ["auto", "mean"])
def test_a_module_elsewhere_is_refused(tmp_path: Path, pooling: str) -> None:
    """Promise: modules.json leads to nothing outside the folder."""
    folder = sentence_model(tmp_path / "model")
    shutil.copytree(folder / "bert", tmp_path / "bert")
    for place in ("../bert", str(tmp_path / "bert")):
        file = folder / "modules.json"
        file.write_text(json.dumps([json.loads(file.read_text())[0] | {"path": place}]))
        with pytest.raises(AssetError, match="outside the model's folder"):
            TextEncoderConfig(model=str(folder), pooling=pooling).load(tmp_path / "assets")  # type: ignore[arg-type]
    file.write_text(json.dumps([{"path": "bert"}]))
    with pytest.raises((AssetError, ConfigError), match=r"modules\.json"):
        TextEncoderConfig(model=str(folder), pooling=pooling).load(tmp_path / "assets")  # type: ignore[arg-type]
