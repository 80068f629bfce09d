"""Draws on disk."""

from pathlib import Path

import numpy as np
import pytest

from kcm.errors import ArtefactError
from kcm.labelling.looks import DrawFile


@pytest.mark.parametrize("damage", ["empty", "truncated", "changed"])
def test_damaged_draw_is_named(tmp_path: Path, damage: str) -> None:
    """One line with the file and the fix, whatever happened to it; no file is no draw."""
    draws = DrawFile(tmp_path)
    assert draws.read(1) is None
    draws.write(1, {"ranked": np.arange(1000)})
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(
        {"empty": b"", "truncated": whole[: len(whole) // 2], "changed": whole[:60] + b"xxxx" + whole[64:]}[damage]
    )
    with pytest.raises(ArtefactError, match=r"a draw is damaged.*draw_1\.npz.*Delete its folder"):
        draws.read(1)
