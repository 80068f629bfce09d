"""What an extra brings is missed with one line."""

import pickle
import tomllib
from pathlib import Path

import pytest

from kcm.encoders.runtime import resolved
from kcm.encoders.text import TextEncoderConfig
from kcm.errors import KcmError
from kcm.extras import EXTRAS, MissingExtraError, load, naming_extra, require

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_every_extra_exists_and_all_has_them() -> None:
    """Promise: a line names an extra that can be installed."""
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    (everything,) = declared["all"]
    assert EXTRAS.keys() <= declared.keys()
    assert all(extra in everything for extra in declared.keys() - {"all", "benchmark", "dev", "test"})


def test_a_missing_package_names_its_extra() -> None:
    """Promise: the error is a user's error, an import error, and crosses processes."""
    with pytest.raises(MissingExtraError) as raised, naming_extra("kcm run"):
        raise ModuleNotFoundError("No module named 'ray.serve'", name="ray.serve")
    assert str(raised.value) == "kcm run needs ray, which is not installed. pip install 'kcm-cascade[ray]'"
    assert isinstance(raised.value, KcmError)
    assert isinstance(raised.value, ImportError)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_other_missing_modules_stay_what_they_are() -> None:
    """Promise: a broken installation is not taken for a missing extra."""
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        load("no_such_module:name", "a test")


def test_an_encoder_runs_in_torch_without_onnx(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Promise: `runtime: auto` finds torch, `runtime: onnx` says what to install."""
    monkeypatch.setattr("kcm.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"kcm-cascade\[onnx\]"):
        require("onnxruntime", "an encoder in ONNX Runtime")
    monkeypatch.setattr(TextEncoderConfig, "build", lambda *_: require("onnx", "an encoder in ONNX Runtime"))
    assert resolved(TextEncoderConfig(model="owner/tiny"), tmp_path).runtime == "torch"
