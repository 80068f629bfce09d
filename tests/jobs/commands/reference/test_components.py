"""`kcm components` lists what a configuration can name, and who brings it."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from jobs.cli import app


def test_components_are_listed_with_where_they_come_from(outside_package: Path, tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["components", "--json", str(tmp_path / "components.json")])
    assert ended.exit_code == 0
    lines = [line.split() for line in ended.stdout.splitlines()]
    assert ["replay", "built", "in", "kcm.learners.replay:ReplayConfig"] in lines
    assert ["anchor", "anchoring", "1.2", "anchor:AnchorConfig"] in lines
    found = json.loads((tmp_path / "components.json").read_text())
    assert list(found) == ["source", "encoder", "large model", "learner", "gate score"]
    assert found["encoder"][-1] == {
        "tag": "letters",
        "path": "letters:LettersConfig",
        "package": "anchoring",
        "version": "1.2",
    }
