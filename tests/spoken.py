"""A run of a second or two of work: that of the example package, on texts of few words."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kcm.config import parse_config
from pipelines.config import RunConfig
from tests.outside import EXTENSION


def spoken_config(storage: str | Path, folder: Path, **more: Any) -> RunConfig:
    """The run on texts in `folder`."""
    write_spoken_texts(folder / "texts", 2 * 120)
    values = yaml.safe_load((EXTENSION / "run.yaml").read_text())
    values["tasks"]["source"]["path"] = str(folder / "texts")
    values |= {
        "storage_path": storage,
        "assets_path": folder,
        "tracking": {"uri": f"sqlite:///{folder / 'mlflow.db'}"},
        "serve": {"feedback": {"url": f"sqlite:///{folder / 'feedback.db'}"}},
    }
    return parse_config(RunConfig, values | more)


def write_spoken_texts(folder: Path, num_texts: int) -> None:
    """Texts in a folder for each label, which is that of the one word in them that the large model knows."""
    rng = np.random.default_rng(0)
    for number, good in enumerate(rng.integers(0, 2, num_texts)):
        label, word = (("bad", "dull"), ("good", "fine"))[good]
        (folder / label).mkdir(parents=True, exist_ok=True)
        said = " ".join("".join(rng.choice([*"aeiounrst"], 4)) for _ in range(5))
        (folder / label / f"{number:03}.txt").write_text(f"{said} {word}")
