"""The paper's own settings work on small stand-ins of the same schema; nothing here needs the hub."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from transformers import ResNetConfig, ResNetModel

from examples.paper import vision_language
from kcm.config import load_config
from kcm.large.adapters.zero_shot import ZeroShotConfig
from kcm.tasks.readers import hub
from pipelines.config import RunConfig
from tests.tiny_clip import save_clip

CONFIGS = Path(__file__).parents[2] / "jobs/configs"
CLASSES = [f"class{number}" for number in range(100)]


def cifar_files(folder: Path) -> dict[str, Path]:
    """What the hub's CIFAR-100 gives, small: pictures as bytes and path, and two labels by name."""
    files = {}
    for seed, (split, per_class) in enumerate({"train": 10, "test": 2}.items()):
        draw = np.random.default_rng(seed)
        rows = []
        for name in CLASSES * per_class:
            stream = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "PNG")
            rows.append({"img": {"bytes": stream.getvalue(), "path": None}, "fine_label": name, "coarse_label": "all"})
        files[split] = folder / f"{split}.parquet"
        pq.write_table(pa.Table.from_pylist(rows), files[split])
    return files


@pytest.fixture
def cifar(tmp_path: Path) -> RunConfig:
    clip, resnet = tmp_path / "clip", tmp_path / "resnet"
    save_clip(clip, ["This", "is", "a", "photo", "of", *CLASSES], 64)
    torch.manual_seed(0)
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")).save_pretrained(
        resnet
    )
    (resnet / "preprocessor_config.json").write_text("{}")
    return load_config(
        RunConfig, CONFIGS / "cifar100_lt_clip.yaml", [f"encoder.model={resnet}", f"large.encoder.model={clip}"]
    )


def test_the_script_prints_the_table_of_cifar_100(
    cifar: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the hub's files to the table; closed form in place of steps, and two splits of classes, to be quick."""
    monkeypatch.setattr(hub, "export", lambda *_: cifar_files(tmp_path))
    assert isinstance(cifar.large, ZeroShotConfig)
    head, _, *lines = vision_language.cifar100(
        [
            f"encoder.model={cifar.encoder.model}",  # type: ignore[attr-defined]
            f"large.encoder.model={cifar.large.encoder.model}",  # type: ignore[attr-defined]
            "tasks.long_tail={imbalance_factor: 10, n_max: 5}",
            "tasks.num_tasks=2",
            "tasks.max_bad_rows=50%",
            "collaborators=[kcm, linear]",
            "learner={name: analytic}",
            "network={hidden: [], basis: pspline, mixing: 8, grid_size: 4, spline_order: 2}",
        ]
    )
    assert head == "| collaborator | classes | small | large | cascade | calls saved |"
    assert [row.split(" | ")[:2] for row in lines] == [
        [f"| {name}", size] for name in ("kcm", "linear") for size in ("all", "few")
    ]


def test_the_script_writes_a_row_for_every_caption(tmp_path: Path) -> None:
    """The columns are those that the configuration reads."""
    pictures = [{"image": {"bytes": b"1"}, "sentences_raw": ["a cat", "one cat"]}]
    vision_language.write_coco(pictures, tmp_path / "coco.parquet")
    source = yaml.safe_load(vision_language.COCO_CLIP.read_text(encoding="utf-8"))["tasks"]["source"]
    rows = pq.read_table(tmp_path / "coco.parquet").to_pylist()
    columns = {value for key, value in source.items() if key.endswith("_column")}
    assert columns == set(rows[0])
    assert [row["caption"] for row in rows] == ["a cat", "one cat"]
    assert {row["imgid"] for row in rows} == {"0"}
