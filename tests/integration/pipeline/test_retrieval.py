"""Retrieval on a stand-in of MSCOCO: towers are aligned, CLIP and BERT are tiny ones."""

import io
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.retrieval import retrieval
from examples.paper import vision_language
from tests.outside import install_extension
from tests.tiny_bert import save_bert
from tests.tiny_clip import save_clip

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

COLORS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "yellow": (230, 230, 40)}
PLACES = ("top", "bottom", "left", "right", "middle")
WORDS = (*COLORS, *PLACES, "at", "the", "is")


def picture(color: str, place: str, rng: np.random.Generator) -> bytes:
    pixels = np.full((24, 24, 3), 255, np.uint8)
    rows = {"top": slice(0, 8), "bottom": slice(16, 24), "middle": slice(8, 16)}.get(place, slice(0, 24))
    columns = {"left": slice(0, 8), "right": slice(16, 24), "middle": slice(8, 16)}.get(place, slice(0, 24))
    pixels[rows, columns] = np.clip(np.array(COLORS[color]) + rng.integers(-20, 20, 3), 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MSCOCO's columns: 200 captions, two for each image."""
    rng = np.random.default_rng(0)
    rows = []
    for image in range(100):
        color, place = list(COLORS)[image % 4], PLACES[image // 4 % 5]
        shown = picture(color, place, rng)
        for sentence, caption in enumerate((f"{color} at the {place} {image}", f"the {place} is {color} {image}")):
            rows.append({"sentid": f"{image}-{sentence}", "imgid": str(image), "image": shown, "caption": caption})
    path = tmp_path_factory.mktemp("coco") / "coco.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return str(path)


def test_the_papers_retrieval_setting_runs_on_a_stand_in(coco, cluster_path, tmp_path, monkeypatch):
    """Promise: the script prints the table of MSCOCO, of the figures that were measured."""
    install_extension(cluster_path)
    monkeypatch.syspath_prepend(cluster_path)
    monkeypatch.setenv("PYTHONPATH", str(cluster_path), prepend=os.pathsep)
    clip = save_clip(tmp_path / "clip", WORDS, max_tokens=77)
    bert = save_bert(tmp_path / "bert", WORDS)
    changes = {
        "storage_path": str(tmp_path / "storage"),
        "tasks.source.tables": f"{{coco: {coco}}}",
        "tasks.source.leave_out": str(tmp_path / "groups.json"),
        "encoder.head": str(tmp_path / "head"),
        "encoder.image": "{kind: pixels, side: 8}",
        "encoder.text.model": str(bert),
        "large.encoder.model": str(clip),
        "train.num_epochs": "1",
        "tune.num_trials": "1",
        "cluster.num_encoders": "1",  # a second one takes longer to start than it saves
        "cluster.num_workers": "1",
    }
    found = {}
    monkeypatch.setattr(vision_language, "retrieval", lambda config: found.update(retrieval(config, (3,))) or found)
    head, _, *lines = vision_language.coco([f"{key}={value}" for key, value in changes.items()])
    assert head == "| collaborator | R@1 | small | large | cascade | pairs scored |"
    assert [line.split(" | ")[0] for line in lines] == ["| kcm", "| mcm"]
    for each in found.values():
        assert all(0 <= each[f"{model}_recall_at_1"] <= 1 for model in ("small", "large", "cascade"))
        assert each["pair_share"] <= 0.5
