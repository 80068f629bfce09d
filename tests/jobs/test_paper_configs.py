"""The paper's own settings work on small stand-ins of the same schema; nothing here needs the hub."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetModel

from kcm.config import load_config
from kcm.content import contents
from kcm.encoders import build_encoder
from kcm.large import Item
from kcm.large.build import build_large
from kcm.tasks import build_sequence, sources
from kcm.tasks.columns import Table
from pipelines.config import RunConfig
from tests.tiny_clip import save_clip

CIFAR = Path(__file__).parents[2] / "jobs/configs/cifar100_lt_clip.yaml"
CLASSES = [f"class{number}" for number in range(100)]


def cifar_tables() -> list[Table]:
    """What the hub's CIFAR-100 gives, small: pictures as bytes and path, and two labels by name."""

    def table(split: str, per_class: int, seed: int) -> Table:
        draw = np.random.default_rng(seed)
        rows = []
        for name in CLASSES * per_class:
            stream = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "PNG")
            rows.append({"img": {"bytes": stream.getvalue(), "path": None}, "fine_label": name, "coarse_label": "all"})
        return Table(split, ("img", "fine_label", "coarse_label"), rows, split)

    return [table("train", 10, 0), table("test", 2, 1)]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    clip, resnet = tmp_path / "clip", tmp_path / "resnet"
    save_clip(clip, ["This", "is", "a", "photo", "of", *CLASSES], 64)
    torch.manual_seed(0)
    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic")).save_pretrained(
        resnet
    )
    (resnet / "preprocessor_config.json").write_text("{}")
    return load_config(RunConfig, CIFAR, [f"encoder.model={resnet}", f"large.encoder.model={clip}"])


def test_cifar_100_becomes_tasks_with_a_long_tail_and_clip_answers(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "read_hub", lambda _: cifar_tables())
    reads = config.encoder.reads | config.large.reads
    sequence = build_sequence(config.tasks, tmp_path, config.seed, reads=reads)
    assert (reads, len(sequence.tasks), len(sequence.long_tail)) == ({"image"}, 10, 100)
    assert not sequence.bad_rows
    rows = sequence.rows(0).to_pydict()
    shown = contents(rows["text"], rows["image"])[:5]
    assert build_encoder(config.encoder, tmp_path).encode(shown).shape == (5, 8)
    model = build_large(config.large, sequence.answer_names, tmp_path)
    answers = model.answer([Item(str(number), content) for number, content in enumerate(shown)])
    assert all(answer.error is None and abs(answer.probabilities.sum() - 1) < 1e-4 for answer in answers)
