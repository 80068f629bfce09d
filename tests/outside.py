"""A package outside of this one: files of examples/extension with made metadata, or all of it as pip installs it."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXTENSION = Path(__file__).parents[1] / "examples" / "extension"


def write_modules(folder: Path) -> None:
    """Modules `anchor`, `words` and `letters`."""
    for name in ("anchor", "words", "letters"):
        shutil.copy(EXTENSION / "kcm_extension" / f"{name}.py", folder)


def install_extension(folder: Path) -> None:
    """The example package, installed into a folder as pip installs it, but for what it depends on; once is enough."""
    if (folder / "kcm_extension").is_dir():
        return
    source = folder / "source"
    shutil.copytree(EXTENSION, source)  # setuptools builds where the sources lie
    target = ["--target", str(folder), "--no-deps", "--no-build-isolation", "--no-index", "--quiet", str(source)]
    subprocess.run([sys.executable, "-m", "pip", "install", *target], check=True, timeout=300)


def write_outside_package(folder: Path) -> None:
    """The modules, and the entry points of a distribution `anchoring` 1.2."""
    write_modules(folder)
    metadata = folder / "anchoring-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: anchoring\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(
        "[kcm.learners]\nanchor = anchor:AnchorConfig\nreplay = anchor:AnchorConfig\n"
        "[kcm.encoders]\nletters = letters:LettersConfig\n"
    )


@pytest.fixture
def outside_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the package, which can be imported while the test runs, as can what the test adds to it."""
    write_outside_package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in [name for name, module in sys.modules.items() if _lies_in(module, tmp_path)]:
        del sys.modules[module]


def _lies_in(module: object, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and Path(file).parent == folder
