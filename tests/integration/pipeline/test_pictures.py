"""Pictures take the way that texts take: through the stages, batch prediction and Serve, broken ones named."""

import csv
import random
import struct
import zlib
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
from pipelines.tracking.tracking import champion_of, fetch_model

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


def write_unusual(folder: Path) -> list[str]:
    """Files that look odd and are pictures all the same: one pixel, four inks, several frames."""
    one, whole = Image.new("RGB", (1, 1), "white"), drawing("disc", "filled", random.Random(3))
    one.save(folder / "pixel.png")
    whole.convert("CMYK").save(folder / "inks.jpg")
    whole.save(folder / "frames.gif", save_all=True, append_images=[whole.rotate(90)])
    return ["pixel.png", "inks.jpg", "frames.gif"]


def write_unusable(folder: Path) -> dict[str, str]:
    """Files that are no pictures, and what is said of each."""
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not a picture")
    header = b"\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    end = struct.pack(">I", zlib.crc32(header[4:])) + b"\0\0\0\0IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + end)
    return {
        "empty.png": "no image",
        "text.png": "not an image of a known kind",
        "bomb.png": "the image has more than 20,000,000 pixels",
    }


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file with the paths of pictures, of which three are odd and three cannot be used."""
    folder, draw = tmp_path_factory.mktemp("drawings"), random.Random(0)
    rows = []
    for style in STYLES:
        for shape in SHAPES:
            for number in range(NUM_EACH):
                name = f"{style}-{shape}-{number}"
                drawing(shape, style, draw).save(folder / f"{name}.png")
                rows.append([name, f"{name}.png", shape, style])
    rows += [[name, name, "disc", "thin"] for name in (*write_unusual(folder), *write_unusable(folder))]
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
        "tasks": {"source": {"kind": "files", "path": str(table), **columns}, "max_bad_rows": 3},
        "encoder": SEEING,
        "large": {"adapter": "classifier", "encoder": {"kind": "pixels", "side": 16}},
        "network": {"hidden": []},
        "train": {"num_epochs": 8, "learning_rate": 0.01},
        "tune": {"num_trials": 2, "scopes": ["global"], "gates": ["confidence"], "max_loss": 0.05},
        "certificate": {"epsilon": 0.25},
        "cluster": {
            "num_encoders": 1,
            "num_workers": 1,
            "num_trials": 1,
        },  # a second takes longer to start than it saves
    }
    return parse_config(RunConfig, values)


@pytest.fixture(scope="module")
def result(config: RunConfig) -> dict[str, Any]:
    return run(config)


@pytest.fixture(scope="module")
def bundle(result: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    tracked = result["mlflow"]
    number = champion_of(tracked["tracking_uri"], tracked["model"])
    return fetch_model(tracked["tracking_uri"], f"{tracked['model']}/{number}", tmp_path_factory.mktemp("bundle"))


def test_run_learns_from_pictures_and_lists_unusable_ones(result: dict[str, Any], config: RunConfig) -> None:
    """Promise: a run learns from pictures and lists those it cannot use."""
    assert list(result["kcm"]["tasks"]) == list(STYLES)
    assert result["kcm"]["overall"]["large_accuracy"] > 0.8
    listed = (config.storage_path / "runs" / "drawings" / "bad_rows.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in listed[1:]] == ["empty.png", "text.png", "bomb.png"]


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
    unusable = write_unusable(tmp_path)
    assert result["routes"]["error"] == len(unusable)
    errors = {name: row["error"] for name, row in rows.items() if row["error"]}
    assert errors.keys() == unusable.keys()
    assert all(errors[name].startswith(reason) for name, reason in unusable.items())
    assert all(rows[name]["kcm_label"] in SHAPES for name in write_unusual(tmp_path))
    right = [row["kcm_label"] == row["label"] for row in rows.values() if not row["error"]]
    assert sum(right) / len(right) > 0.8
