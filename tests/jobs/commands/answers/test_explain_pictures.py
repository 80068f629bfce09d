"""`kcm explain` on pictures, by their pixels."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from PIL import Image
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.work.explain import inputs
from kcm.bundle.bundle import Bundle
from kcm.cascade.gate_kinds import GateInputs, GateRows, form_named
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.encoders.pixels import PixelsConfig
from kcm.errors import DataError
from kcm.large.adapters.recorded import RecordedConfig
from tests.kcm.bundle.test_bundle import bundle as any_bundle

SIDE = 4
CERTIFY_ROWS = torch.rand(200, SIDE**2, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle over pixels, a picture, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    encoder = PixelsConfig(side=SIDE, color="grey")
    network = NetworkConfig(hidden=(), shared=True)
    any_bundle(
        collaborator=Collaborator(SIDE**2, 2, network, "kan", seed=0).requires_grad_(False),
        label_names=("cat", "dog"),
        encoder=encoder,
        encoder_identity=encoder.identity(folder),
        large=RecordedConfig(path="none"),
        policy=Policy(decision=KEEP_ALL),
        certificates={},
        certify_rows=CERTIFY_ROWS,
    ).write(folder / "bundle")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "0.png")
    (folder / "broken.png").write_text("no picture")
    return folder


@pytest.mark.parametrize("network", [{}, {"basis": "quadratic", "mixing": 9}], ids=["splines", "quadratic"])
def test_edges_are_ranked_on_the_certify_rows(folder: Path, tmp_path: Path, network: dict[str, Any]) -> None:
    """Promise: without a memory, edges are ranked on a sample of the certify rows."""
    collaborator = Collaborator(SIDE**2, 3, NetworkConfig(hidden=(), **network), "kan", seed=0).requires_grad_(False)
    parts = {"collaborator": collaborator, "label_names": ("cat", "dog", "hen"), "certify_rows": None}
    bundle = replace(Bundle.read(folder / "bundle"), **parts)
    compared = replace(bundle, certify_rows=CERTIFY_ROWS)

    def explained(bundle: Path) -> Result:
        words = ["--image", folder / "0.png", "--output", tmp_path / "drawn", "--json", tmp_path / "json"]
        return CliRunner().invoke(app, ["explain", str(bundle), *map(str, words)])

    refused = explained(bundle.write(tmp_path / "plain"))
    assert refused.exit_code == 2
    assert "the bundle holds no rows, so the importance of edges is unknown" in refused.stderr
    result = explained(compared.write(tmp_path / "compared"))
    assert result.exit_code == 0, result.output
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in drawn] == ["judge.png", "small.png"]
    assert all(imread(path).std() > 0 for path in drawn)
    (decision,) = json.loads((tmp_path / "json").read_text())["decisions"]
    for reason in decision["reasons"].values():
        added = sum(each["contribution"] for each in reason["contributions"])
        assert reason["logit"] == pytest.approx(reason["baseline"] + added + reason["rest"], abs=1e-5)
        kinds = {each["name"].split()[0] for each in reason["contributions"]}
        assert kinds == ({"pixel", "direction"} if network else {"pixel"})


def test_signal_gate_is_drawn_with_the_rates_of_its_labels(folder: Path, tmp_path: Path) -> None:
    """The small side is right on half of what it calls a cat: that is told without any input, and kept as JSON."""
    logits_NC = np.random.default_rng(1).normal(size=(200, 2))
    cat_N = logits_NC.argmax(1) == 0
    right_N = ~cat_N | (np.cumsum(cat_N) % 2 == 0)
    inputs = GateInputs(logits_NC, logits_NC, None)
    rows = GateRows(inputs=inputs, small_correct=right_N, large_correct=np.ones(200, dtype=bool))
    bundle = replace(
        Bundle.read(folder / "bundle"),
        policy=Policy(gate="signals", decision=KEEP_ALL),
        gate_head=form_named("signals").fit(rows).head,
        label_names=("$cat$", "dog"),
    ).write(tmp_path / "bundle")
    words = ["--output", str(tmp_path / "drawn"), "--json", str(tmp_path / "json")]
    result = CliRunner().invoke(app, ["explain", str(bundle), *words])
    assert result.exit_code == 0, result.output
    assert imread(tmp_path / "drawn" / "gate.png").std() > 0
    cat, dog = json.loads((tmp_path / "json").read_text())["labels"]
    drawn = 10 * right_N.mean()
    assert (cat["label"], dog["label"]) == ("$cat$", "dog")
    assert cat["small_accuracy"] == pytest.approx((right_N[cat_N].sum() + drawn) / (cat_N.sum() + 10))
    assert dog["small_accuracy"] == pytest.approx(((~cat_N).sum() + drawn) / ((~cat_N).sum() + 10))
    assert f"$cat$ {100 * cat['small_accuracy']:.1f}% 100.0%" in " ".join(result.output.split())


def test_reasons_need_no_matplotlib(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Promise: the base installation explains a decision, and says what to install for the pictures."""
    monkeypatch.setattr("jobs.work.explain.find_spec", lambda name: None)
    words = ["--image", str(folder / "0.png"), "--output", str(tmp_path / "drawn"), "--json", str(tmp_path / "json")]
    result = CliRunner().invoke(app, ["explain", str(folder / "bundle"), *words])
    assert result.exit_code == 0, result.output
    assert result.stderr == "no pictures: matplotlib is not installed. pip install 'kcm-cascade[plot]'\n"
    assert not (tmp_path / "drawn").exists()
    (decision,) = json.loads((tmp_path / "json").read_text())["decisions"]
    assert decision["reasons"]


def test_what_cannot_be_read_is_reported_and_not_explained(folder: Path) -> None:
    shown = CliRunner().invoke(app, ["explain", str(folder / "bundle"), "--image", str(folder / "broken.png")])
    assert (shown.exit_code, "not an image of a known kind" in shown.stderr) == (2, True)
    with pytest.raises(DataError, match="no such picture"):
        inputs([], [folder / "gone.png"])
    with pytest.raises(DataError, match="2 texts and 1 pictures make no pairs"):
        inputs(["a", "b"], [folder / "0.png"])
