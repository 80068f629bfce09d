"""The sentence that the project exists for, on a cluster of three nodes (`make cluster`)."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_a_task_sequence_is_trained_searched_and_served_on_a_cluster() -> None:
    """Promise: also while a train worker and a node die, with the result of one worker and no request lost."""
    command = [sys.executable, "tools/cluster.py"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    said = " ".join(ended.stdout.split())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "killed rank 0 of 2 after" in said
    assert "equal to one process: yes" in said
    assert "served 2,000 of 2,000 requests answered while a node with a replica was lost" in said
