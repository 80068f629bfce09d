"""Files of logged answers."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest


@pytest.fixture
def table_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes columns to a CSV file and gives its path."""

    def make(**columns: object) -> Path:
        path = tmp_path / "table.csv"
        pd.DataFrame(columns).to_csv(path, index=False)
        return path

    return make
