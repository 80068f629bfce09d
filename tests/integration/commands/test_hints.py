"""The example of hints replays its stored answers, on one table and two splits."""

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import script

pytestmark = pytest.mark.integration

SCRIPT = Path(__file__).parents[3] / "examples" / "paper" / "hints" / "hints.py"


@pytest.mark.usefixtures("quick_bundle")  # fetches reviews and MiniLM
def test_stored_answers_are_replayed(assets_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both small sides learn, and the large model's accuracy is that of its 400 answers without a hint."""
    written: dict[str, Mapping[str, Any]] = {}
    monkeypatch.setattr(script, "keep", written.__setitem__)
    options = ["--only", "sentiment", "--splits", "2", "--assets", str(assets_dir), "--storage", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["hints.py", "replay", *options, "--write"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    found = written["hints"]
    assert (found["rows"], found["calls"]) == ({"sentiment": 400}, 1200)
    for side in ("KCM", "MCM"):
        figures = found[side]["tables"]["sentiment"]
        assert figures["large"] == pytest.approx(0.69, abs=0.05)
        assert figures["small"] > 0.6
        assert figures["half: soft"] - figures["half: none"] == pytest.approx(
            found[side]["differences"]["soft hints, less sure half"]["pooled"]["estimate"], abs=2e-4
        )
