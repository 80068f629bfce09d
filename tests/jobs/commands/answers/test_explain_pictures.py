"""`kcm explain` on pictures: what speaks for an answer is drawn on the picture where features are pixels."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image
from typer.testing import CliRunner

from jobs.cli import app
from jobs.commands.answers.explain import Explainer, inputs
from kcm.bundle.bundle import Bundle
from kcm.cascade.policy import KEEP_ALL, Policy
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.encoders import PixelsConfig
from kcm.errors import DataError
from kcm.large import RecordedConfig
from kcm.learners import FinetuneConfig

SIDE = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle over pixels, a table of pictures, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    encoder = PixelsConfig(side=SIDE, color="grey")
    network = NetworkConfig(hidden=(), shared=True)
    Bundle(
        collaborator=Collaborator(SIDE**2, 2, network, "kan", seed=0).requires_grad_(False),
        seed=0,
        label_names=("cat", "dog"),
        task_names=("pets",),
        encoder=encoder,
        encoder_identity=encoder.identity(folder),
        large=RecordedConfig(path="none"),
        large_identity="none",
        policy=Policy(decision=KEEP_ALL),
        learner=FinetuneConfig(),
    ).write(folder / "bundle")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 9, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{number}.png")
    (folder / "broken.png").write_text("no picture")
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["image"], *([f"{name}.png"] for name in (*range(8), "broken"))])
    return folder


@pytest.fixture(scope="module")
def explainer(folder: Path) -> Explainer:
    return Explainer(folder / "bundle", folder, folder / "rows.csv")


def test_the_command_draws_networks_curves_and_the_heat_on_the_picture(folder: Path, tmp_path: Path) -> None:
    words = ["--rows", str(folder / "rows.csv"), "--image", str(folder / "0.png"), "--top", "3"]
    result = CliRunner().invoke(app, ["explain", str(folder / "bundle"), "--output", str(tmp_path), *words])
    assert result.exit_code == 0, result.output
    assert "the picture" in result.output
    drawn = sorted(tmp_path.iterdir())
    assert [path.name for path in drawn] == ["decision-1.png", "heat-1.png", "judge.png"]
    assert all(imread(path).std() > 0 for path in drawn)


def test_rows_that_cannot_be_read_are_no_rows_to_judge_edges_on(explainer: Explainer) -> None:
    assert explainer.probe_ND.shape == (8, SIDE**2)


def test_what_cannot_be_read_is_reported_and_not_explained(explainer: Explainer, folder: Path) -> None:
    with pytest.raises(DataError, match="not an image of a known kind"):
        explainer.explain(*inputs([], [folder / "broken.png"]), 3)
    with pytest.raises(DataError, match="the bundle reads image, and none is given"):
        explainer.explain(*inputs(["a cat"], []), 3)
    with pytest.raises(DataError, match="no such picture"):
        inputs([], [folder / "gone.png"])
    with pytest.raises(DataError, match="2 texts and 1 pictures make no pairs"):
        inputs(["a", "b"], [folder / "0.png"])
