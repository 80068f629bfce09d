"""Learners on a pretend device, in a process of their own: torch counts its devices at the first backward pass."""

import subprocess
import sys
from pathlib import Path


def test_learners_compute_the_same_on_a_device() -> None:
    """Promise: every learner and basis computes on its device what it computes on the CPU."""
    file = Path(__file__).with_name("on_device.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", str(file)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
