"""Pairs: as many that match as not, no caption that gives its answer away, and no picture in two splits."""

import io
from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from benchmarks.sequences import build_sequence
from examples.extension.kcm_extension.matching.pairs import PairsSource
from kcm.inputs.content import IMAGE, TEXT
from kcm.tasks import TasksConfig


def picture(number: int, shade: int = 7) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number % 256, number // 256, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def table(path: Path, num_rows: int, **columns: object) -> str:
    rows = {
        "id": [f"{path.stem}{number}" for number in range(num_rows)],
        "image": [picture(number) for number in range(num_rows)],
        "text": [f"caption {number}" for number in range(num_rows)],
    }
    pd.DataFrame(rows | columns).to_parquet(path)
    return str(path)


def pairs(path: str, **options: object) -> list:
    return list(PairsSource(tables={"task": path}, id_column="id", **options).build(Path()).records)


@pytest.mark.parametrize("num_rows", [2, 3, 40, 41])
def test_picture_and_caption_are_right_and_wrong_equally(num_rows, tmp_path):
    found = pairs(table(tmp_path / "p.parquet", num_rows))
    assert Counter(pair.label for pair in found) == {"match": num_rows, "no match": num_rows}
    for part in ("image", "text"):
        labels = defaultdict(list)
        for pair in found:
            labels[getattr(pair, part)].append(pair.label)
        assert all(sorted(each) == ["match", "no match"] for each in labels.values())
    assert len({pair.id for pair in found}) == 2 * num_rows


def test_pictures_with_equal_captions_are_never_opposed(tmp_path):
    texts = [f"caption {number // 3}" for number in range(30)]
    found = pairs(table(tmp_path / "p.parquet", 30, text=texts))
    own = {pair.image: pair.text for pair in found if pair.label == "match"}
    assert all(pair.text != own[pair.image] for pair in found if pair.label == "no match")


def test_no_picture_and_no_caption_is_in_two_splits(tmp_path):
    pictures = {name: [picture(number, shade) for number in range(120)] for shade, name in enumerate(("one", "two"))}
    tables = {name: table(tmp_path / f"{name}.parquet", 120, image=each) for name, each in pictures.items()}
    config = TasksConfig(source=PairsSource(tables=tables, id_column="id"))
    sequence = build_sequence(config, tmp_path, seed=0, reads=IMAGE | TEXT)
    assert [task.name for task in sequence.tasks] == ["one", "two"]
    assert sequence.label_names == ("match", "no match")
    rows = sequence.tasks[0].rows.to_pandas()
    for part in ("image", "text"):
        assert rows.groupby(part)["split"].nunique().max() == 1


def test_given_splits_are_paired_within(tmp_path):
    splits = ["train"] * 20 + ["test"] * 10
    found = pairs(table(tmp_path / "p.parquet", 30, split=splits))
    split_of = {pair.text: pair.split for pair in found if pair.label == "match"}
    assert all(split_of[pair.text] == pair.split for pair in found)
