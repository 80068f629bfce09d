"""AGENTS.md is true: its recipes are typed one after the other."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.commands.test_newcomer import requests

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PAGE = Path(__file__).parents[3] / "AGENTS.md"


def test_a_coding_agent_can_type_every_recipe(tmp_path: Path, assets_dir: Path) -> None:
    """Promise: five recipes, from a table to a certificate, work as they are written, without a key."""
    (tmp_path / "assets").symlink_to(assets_dir.absolute())
    rows = requests(900)
    for name, part in (("tickets", rows[:700]), ("july", rows[700:])):
        with (tmp_path / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "team", "llm"), *((text, label, label) for text, label in part)])
    recipes = re.findall(r"^```(bash|python)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in recipes] == ["bash"] * 4 + ["python"]
    here = {"XDG_DATA_HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | here
    for kind, text in recipes:
        command = ["bash", "-euc", text] if kind == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, text + done.stdout + done.stderr
    assert (tmp_path / "storage" / "runs" / "tickets" / "report.html").exists()
    assert len((tmp_path / "answered.csv").read_text(encoding="utf-8").splitlines()) == 201
