"""Towers of examples/extension: a head aligns two encoders, on rows from which nothing else learns."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples.extension.kcm_extension.matching import align
from examples.extension.kcm_extension.matching.head import AlignmentHead, fit_alignment
from kcm.api.cascade import load_cascade
from kcm.bundle.answers import Input
from kcm.bundle.bundle import Bundle
from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.config import Config, parse_config
from kcm.encoders import EncoderConfig
from kcm.errors import AssetError, ConfigError, DataError, KcmError
from kcm.inputs.content import Content
from kcm.large import LinearHead
from kcm.large.adapters.classifier import ClassifierConfig
from pipelines.config import RunConfig
from tests.examples.test_pairs import picture, table
from tests.kcm.bundle.test_bundle import FEATURES, LABELS, bundle
from tests.kcm.bundle.test_crafted import edited
from tests.tiny_bert import save_bert

PACKAGE = "examples.extension.kcm_extension.matching"


class Run(Config):
    encoder: EncoderConfig


def towers(folder: Path, **changes: Any) -> dict[str, Any]:
    """A section of towers over few pixels and a tiny BERT, whose head lies in the folder."""
    if not (folder / "bert").is_dir():
        save_bert(folder / "bert", ("a", "cat", "caption"))
    text = {"kind": "text", "model": str(folder / "bert"), "max_length": 8}
    parts = {"image": {"kind": "pixels", "side": 4}, "text": text, "head": str(folder / "head")}
    return {"kind": f"{PACKAGE}.towers:TowersConfig"} | parts | changes


def test_a_head_finds_the_pairs_of_rows_that_it_never_saw() -> None:
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(600, 6))
    views = [hidden @ rng.normal(size=(6, dim)) for dim in (20, 12)]
    images, texts = ((view + 0.1 * rng.normal(size=view.shape)).astype(np.float32) for view in views)
    head = fit_alignment(images[:500], texts[:500], [str(number) for number in range(500)], 0)
    scores = head.images(torch.from_numpy(images[500:])) @ head.texts(torch.from_numpy(texts[500:])).T
    assert (scores.argmax(1) == torch.arange(100)).float().mean() > 0.25  # 0.01 by chance


@pytest.mark.parametrize(
    ("part", "tower", "message"),
    [
        ("text", {"kind": "pixels"}, "does not read the text alone"),
        ("image", {"kind": "text", "model": "m"}, "does not read the image alone"),
    ],
)
def test_towers_that_read_another_part_are_refused(
    part: str, tower: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(Run, {"encoder": towers(tmp_path, **{part: tower})})


def run_config(folder: Path) -> RunConfig:
    """A run on pairs of 60 pictures, with towers on both sides."""
    source = {"kind": f"{PACKAGE}.pairs:PairsSource", "tables": {"one": table(folder / "one.parquet", 60)}}
    source |= {"id_column": "id", "leave_out": str(folder / "groups.json")}
    small, large = towers(folder), towers(folder, head=str(folder / "large"), share=0.4)
    values = {"name": "pairs", "tasks": {"source": source}, "encoder": small}
    return parse_config(RunConfig, values | {"large": {"adapter": "classifier", "encoder": large}})


def test_heads_are_fitted_on_rows_that_the_run_leaves_out(tmp_path: Path) -> None:
    """Promise: nothing else learns from the train groups of a head, and all other rows are there."""
    config = run_config(tmp_path)
    source = config.tasks.source
    with pytest.raises(AssetError, match=r"no alignment head .*kcm_extension\.matching\.align"):
        config.encoder.build(tmp_path)
    with pytest.raises(DataError, match=r"no file of groups .*kcm_extension\.matching\.align"):
        source.build(tmp_path)
    align.align(config)
    everything = list(source.model_copy(update={"leave_out": None}).build(tmp_path).records)
    left_out = set(json.loads((tmp_path / "groups.json").read_text()))
    assert 0 < len(left_out) < len({row.group for row in everything})
    left = list(source.build(tmp_path).records)
    assert [row.id for row in left] == [row.id for row in everything if row.group not in left_out]
    features = config.encoder.build(tmp_path).encode([Content(row.text, row.image) for row in left])
    assert features.shape == (len(left), 129)
    assert config.encoder.identity(tmp_path) != config.large.backbone.identity(tmp_path)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A bundle with the head of towers, whose run is gone."""
    AlignmentHead(48, 32, FEATURES - 1).eval().save(tmp_path / "head")
    encoder = parse_config(Run, {"encoder": towers(tmp_path)}).encoder
    large = ClassifierConfig(encoder=encoder)
    head = LinearHead(np.ones((3, FEATURES), dtype=np.float32), np.zeros(3, dtype=np.float32))
    folder = bundle(
        encoder=encoder,
        encoder_identity=encoder.identity(tmp_path),
        large=large,
        large_identity=large.identity(LABELS, tmp_path, head=head),
        large_head=head,
        policy=Policy(temperature=1.0, decision=ESCALATE_ALL),
    ).write(tmp_path / "bundle")
    assert not [path for path in folder.rglob("*.json") if str(tmp_path / "head") in path.read_text()]
    shutil.rmtree(tmp_path / "head")
    return folder


def test_a_bundle_carries_the_head(made: Path, tmp_path: Path) -> None:
    """Promise: a bundle answers elsewhere, once the run that fitted its head is gone."""
    (tmp_path / "elsewhere").mkdir()
    moved = made.rename(tmp_path / "elsewhere" / "bundle")
    again = Bundle.read(moved).write(tmp_path / "again")  # as a run does that continues it
    shutil.rmtree(moved)
    (answer,) = load_cascade(again, tmp_path).answer([Input(Content("a cat", picture(1)))])
    assert answer.route == "large"


def test_towers_of_a_bundle_lead_nowhere_else(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: encoders inside of a bundle's encoder name neither a folder outside nor a module."""
    monkeypatch.delenv("KCM_TRUSTED_MODULES", raising=False)
    mark = tmp_path / "imported"
    (tmp_path / "crafted_tower.py").write_text(f"open({str(mark)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for tower in ({"kind": "text", "model": "/outside"}, {"kind": "crafted_tower:Encoder"}):
        edited(made, "encoder.json", lambda content, tower=tower: content["config"].update(text=tower))
        with pytest.raises(KcmError, match="not trusted here"):
            load_cascade(made, tmp_path / "assets")
    assert not mark.exists()
