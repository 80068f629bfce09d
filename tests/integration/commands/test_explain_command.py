"""`kcm explain` on a bundle around a real encoder: what it prints, draws and writes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread
from typer.testing import CliRunner, Result

from jobs.cli import app

pytestmark = pytest.mark.integration


def kcm_explain(bundle: Path, assets_dir: Path, output: Path, *words: str) -> Result:
    fixed = ["--assets-path", str(assets_dir), "--output", str(output), "--json", str(output.with_suffix(".json"))]
    return CliRunner().invoke(app, ["explain", str(bundle), *fixed, *words])


def test_a_decision_is_explained_in_words_figures_and_pictures(
    quick_bundle: Callable[..., Path], assets_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "explanation"
    text = "A [great] phone"
    memory = torch.nn.functional.normalize(torch.randn(40, 384, generator=torch.Generator().manual_seed(0)), dim=-1)
    words = ("--input", text, "--top", "5")
    shown = kcm_explain(quick_bundle(learner_state={"memory": {"features": memory}}), assets_dir, output, *words)
    assert shown.exit_code == 0, shown.output
    assert text in shown.output
    result = json.loads(output.with_suffix(".json").read_text())
    assert [Path(path).name for path in result["pictures"]] == ["judge.png", "small.png", "decision-1.png"]
    assert all(imread(path).std() > 0 for path in result["pictures"])
    (decision,) = result["decisions"]
    assert {each["word"] for each in decision["words"]} == {"A", "[great]", "phone"}
    for reason in decision["reasons"].values():
        added = sum(each["contribution"] for each in reason["contributions"])
        assert len(reason["contributions"]) == 5
        assert reason["logit"] == pytest.approx(reason["baseline"] + added + reason["rest"], abs=1e-4)
