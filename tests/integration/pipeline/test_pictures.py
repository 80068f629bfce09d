"""Pictures take the way that texts take: through the stages and batch prediction, broken ones named."""

import csv
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from kcm.config import parse_config
from pipelines.batch.predict import predict
from pipelines.cluster.config import ClusterConfig
from pipelines.config import RunConfig
from pipelines.progress import Reporter
from pipelines.run import run
from pipelines.tracking.tracking import fetch_model
from tests.champions import alias_of

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

SEEING = {"kind": "pixels", "side": 6, "color": "grey"}  # more than the mean colour
SHAPES, STYLES, NUM_EACH = ("disc", "frame"), ("filled", "thin"), 60


def drawing(shape: str, style: str, draw: random.Random) -> Image.Image:
    image = Image.new("RGB", (32, 32), "white")
    x, y, size = draw.randint(1, 8), draw.randint(1, 8), draw.randint(16, 22)
    color = tuple(draw.randint(0, 150) for _ in range(3))
    pen = ImageDraw.Draw(image)
    outline = {"outline": color, "width": 2} | ({"fill": color} if style == "filled" else {})
    if shape == "disc":
        pen.ellipse((x, y, x + size, y + size), **outline)
    else:
        pen.rectangle((x, y, x + size, y + size), **outline | {"fill": None, "width": 5})
    return image


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file with the paths of pictures, and of a file that is none."""
    folder, draw = tmp_path_factory.mktemp("drawings"), random.Random(0)
    rows = []
    for style in STYLES:
        for shape in SHAPES:
            for number in range(NUM_EACH):
                name = f"{style}-{shape}-{number}"
                drawing(shape, style, draw).save(folder / f"{name}.png")
                rows.append([name, f"{name}.png", shape, style])
    (folder / "text.png").write_text("not a picture")
    rows.append(["text.png", "text.png", "disc", "thin"])
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["id", "picture", "label", "style"], *rows])
    return folder / "rows.csv"


@pytest.fixture(scope="module")
def config(table: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    columns = {"text_column": None, "image_column": "picture", "id_column": "id", "task_column": "style"}
    values: dict[str, Any] = {
        "name": "drawings",
        "storage_path": tmp_path_factory.mktemp("storage"),
        "collaborators": ["kcm"],
        "tasks": {"source": {"kind": "files", "path": str(table), **columns}, "max_bad_rows": 1},
        "encoder": SEEING,
        "large": {"adapter": "classifier", "encoder": {"kind": "pixels", "side": 16}},
        "network": {"hidden": []},
        "train": {"num_epochs": 8, "learning_rate": 0.01},
        "tune": {"num_trials": 2, "scopes": ["global"], "gates": ["confidence"], "max_loss": 0.05},
        "certificate": {"epsilon": 0.25},
        "cluster": {"num_encoders": 1, "num_workers": 1},  # a second takes longer to start than it saves
    }
    return parse_config(RunConfig, values)


@pytest.fixture(scope="module")
def result(config: RunConfig) -> dict[str, Any]:
    return run(config)


@pytest.fixture(scope="module")
def bundle(result: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    tracked = result["mlflow"]
    number = alias_of(tracked["tracking_uri"], tracked["model"])
    return fetch_model(tracked["tracking_uri"], f"{tracked['model']}/{number}", tmp_path_factory.mktemp("bundle"))


def test_run_learns_from_pictures_and_lists_unusable_ones(result: dict[str, Any], config: RunConfig) -> None:
    """Promise: a run learns from pictures and lists those it cannot use."""
    assert list(result["kcm"]["tasks"]) == list(STYLES)
    assert result["kcm"]["overall"]["large_accuracy"] > 0.8
    listed = (config.storage_path / "runs" / "drawings" / "bad_rows.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in listed[1:]] == ["text.png"]


def test_picture_file_is_answered_and_faults_say_why(bundle: Path, table: Path, tmp_path: Path) -> None:
    """Promise: a file of pictures is answered and what cannot be used says why."""
    result = predict(
        bundle,
        table,
        tmp_path / "out.csv",
        "text",
        image_column="picture",
        task_column="style",
        cluster=ClusterConfig(num_encoders=1),
        assets_dir=tmp_path,
        reporter=Reporter(),
    )
    with (tmp_path / "out.csv").open(encoding="utf-8") as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    assert result["routes"]["error"] == 1
    (error,) = (row["error"] for row in rows.values() if row["error"])
    assert rows["text.png"]["error"] == error
    assert error.startswith("not an image of a known kind")
    right = [row["kcm_label"] == row["label"] for row in rows.values() if not row["error"]]
    assert sum(right) / len(right) > 0.8
