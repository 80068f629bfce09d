"""A package outside of this one: the files of docs/extending.md, an encoder, and the metadata of an installed one."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXTENDING = Path(__file__).parents[1] / "docs" / "extending.md"

ENCODER = '''
import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from kcm.encoders import EncoderConfig
from kcm.inputs.content import TEXT


class LettersConfig(EncoderConfig):
    """How often each letter occurs."""

    reads: ClassVar = TEXT

    def load(self, assets_dir, device="cpu"):
        return Letters()

    def identity(self, assets_dir):
        return Letters.identity


class Letters:
    dim, identity, reads = 26, "letters", TEXT

    def read(self, content):
        return content

    def encode(self, inputs):
        counts = [[content.text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for content in inputs]
        return np.array(counts, dtype=np.float32).reshape(-1, 26) / 10
'''


def write_modules(folder: Path) -> None:
    """Modules `anchor`, `words` and `letters`."""
    blocks = re.findall(r"```python\n(.*?)```", EXTENDING.read_text(encoding="utf-8"), re.DOTALL)
    learner, large = blocks
    for name, text in {"anchor": learner, "words": large, "letters": ENCODER}.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


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
