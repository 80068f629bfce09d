"""`kcm label` on two Ray nodes, killed twice, as benchmarks/label_large.py measures it, on a small table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
UNDER_WAY = 8  # questions that a killed process may have sent


def test_killed_job_on_two_nodes_buys_nothing_twice(tmp_path: Path) -> None:
    """Promise: only questions under way are asked again, though a node died too, and the certificate holds."""
    words = [sys.executable, "-m", "benchmarks.label_large", "--rows", "4000", "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    (figures,) = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert figures["statuses"] == [-9, -9, 0], done.stderr
    assert figures["asked_twice"] <= 2 * UNDER_WAY
    assert figures["bought"] <= figures["asked"] <= figures["bought"] + 2 * UNDER_WAY
    assert figures["certified"]
    assert figures["differ"] <= 0.05 * 4000
