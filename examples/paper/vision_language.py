"""The paper's vision-language settings, from download to table. Needs the Hugging Face hub; not run at full size yet.

    pip install '.[ray,hub,benchmark]' ./examples/extension
    PYTHONPATH=. python examples/paper/vision_language.py cifar100 [key=value ...]
    PYTHONPATH=. python examples/paper/vision_language.py coco [key=value ...]

`cifar100` is CIFAR-100 with a long tail, its rows the sizes of classes; `coco` is MSCOCO, its rows R@1 of both ways
together. Captions and pictures of MSCOCO come from the test split of Karpathy and Fei-Fei, 5,000 pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.over_splits import by_class_size, measured
from benchmarks.retrieval import aligned, retrieval
from benchmarks.script import CONFIGS
from kcm.config import load_config
from pipelines.config import RunConfig

COCO = "Multimodal-Fatima/COCO_captions_test"
TABLE = Path("data/coco.parquet")
COCO_CLIP = Path(__file__).parents[1] / "extension" / "coco_clip.yaml"
SIDES = ("small", "large", "cascade")


def main(arguments: Sequence[str]) -> None:
    """Print one table."""
    if not arguments or arguments[0] not in SETTINGS:
        sys.exit(f"error: give one of {', '.join(SETTINGS)}")
    for line in SETTINGS[arguments[0]](arguments[1:]):
        print(line, flush=True)


def cifar100(overrides: Sequence[str] = ()) -> Iterator[str]:
    """Accuracy on classes with many, medium and few train rows, and calls saved."""
    cell = measured(load_config(RunConfig, CONFIGS / "cifar100_lt_clip.yaml", overrides), by_class_size)
    yield from head("classes", "calls saved")
    for name, bands in cell["sizes"].items():
        side = cell["sides"][name]
        everything = {"small": side["small"], "large": side["large"], "cascade": side["large"] - side["lost"]}
        yield row(name, "all", everything, side["saved"])
        for band, right in bands.items():
            yield row(name, band, right)


def coco(overrides: Sequence[str] = ()) -> Iterator[str]:
    """R@1 of pictures for captions and captions for pictures, within half of the pairs that the large model scores."""
    if not TABLE.exists() and not any(key.startswith("tasks.source.tables") for key in overrides):
        write_coco(downloaded(), TABLE)
    yield from head("R@1", "pairs scored")
    for name, figures in retrieval(aligned(COCO_CLIP, overrides)).items():
        recalls = {side: figures[f"{side}_recall_at_1"] for side in SIDES}
        yield row(name, "both ways", recalls, figures["pair_share"])


def downloaded() -> Iterable[Mapping[str, Any]]:
    """Pictures of MSCOCO as files, with five captions each."""
    from datasets import Image, load_dataset

    return load_dataset(COCO, split="test").cast_column("image", Image(decode=False))


def write_coco(pictures: Iterable[Mapping[str, Any]], table: Path) -> None:
    """A row for every caption, as examples/extension/coco_clip.yaml reads them."""
    rows = [
        {"sentid": f"{number}-{place}", "imgid": str(number), "image": picture["image"]["bytes"], "caption": caption}
        for number, picture in enumerate(pictures)
        for place, caption in enumerate(picture["sentences_raw"])
    ]
    table.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), table)


def head(what: str, last: str) -> Iterator[str]:
    """The first lines of a table."""
    names = ["collaborator", what, *SIDES, last]
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)


def row(name: str, what: str, right: Mapping[str, float], more: float | None = None) -> str:
    """A line of a table, shares in %."""
    shares = [*(right[side] for side in SIDES), more]
    return f"| {name} | {what} | {' | '.join('' if share is None else f'{100 * share:.1f}' for share in shares)} |"


SETTINGS: Mapping[str, Callable[[Sequence[str]], Iterator[str]]] = {"cifar100": cifar100, "coco": coco}

if __name__ == "__main__":
    main(sys.argv[1:])
