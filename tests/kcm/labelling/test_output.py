"""A labelled table as a file."""

from pathlib import Path

import pandas as pd
import pytest

from kcm.errors import ArtefactError
from kcm.labelling.output import write_frame


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("mixed.parquet", pd.DataFrame({"a": [1, "x"]})),
        ("twice.jsonl", pd.DataFrame([[1, 2]], columns=["a", "a"])),
    ],
)
def test_table_that_the_format_cannot_hold_is_one_line(tmp_path: Path, name: str, frame: pd.DataFrame) -> None:
    """No draft is left behind."""
    with pytest.raises(ArtefactError, match=rf"cannot write the table: .*\({tmp_path}/{name}\)"):
        write_frame(frame, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
