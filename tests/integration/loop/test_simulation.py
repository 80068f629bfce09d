"""The simulated loop: a label that nobody has named comes with the traffic, is noticed, named, learned and kept."""

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from benchmarks.simulation.__main__ import app

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

WORDS = {
    "weather": "rain snow sun wind storm cloud",
    "food": "bread soup rice apple cheese cake",
    "music": "song piano guitar drum concert choir",
    "travel": "train flight hotel ticket passport beach",
    "money": "bank loan card cash bill account",
    "sport": "goal match team coach race ball",
    "school": "teacher exam lesson pupil homework class",
    "health": "doctor nurse pill fever cough hospital",
    "animals": "dog cat horse cow sheep bird",
    "garden": "rose lawn tree seed shovel hedge",
    "clothes": "shirt coat shoe glove scarf dress",
    "computers": "keyboard laptop server disk mouse screen",
}


@pytest.fixture(scope="module")
def played(assets_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A table of twelve subjects, one of which comes late; the result as JSON."""
    folder, drawn = tmp_path_factory.mktemp("simulate"), random.Random(0)
    rows = [
        {"text": f"{' and '.join(drawn.sample(words.split(), 3))}, {drawn.randrange(10**6)}", "label": label}
        for label, words in WORDS.items()
        for _ in range(120)
    ]
    pd.DataFrame(rows).to_csv(folder / "rows.csv", index=False)
    config = {
        "name": "played",
        "storage_path": str(folder / "storage"),
        "assets_path": str(assets_dir),
        "tasks": {
            "source": {"kind": "files", "path": "elsewhere.csv"},
            "scenario": "class_incremental",
            "num_tasks": 1,
        },
        "encoder": {"model": "sentence-transformers/all-MiniLM-L6-v2", "max_length": 32},
        "large": {"adapter": "zero_shot"},
        "network": {"mixing": 32},
        "serve": {"feedback": {"store_payloads": "all"}},
        "update": {"min_large_answers": 40},
        "cluster": {"num_workers": 1, "num_encoders": 1},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    words = [str(folder / "c.yaml"), "--table", str(folder / "rows.csv"), "--late", "sport", "--json"]
    done = CliRunner().invoke(app, [*words, str(folder / "result.json")])
    assert done.exit_code == 0, done.output
    return json.loads((folder / "result.json").read_text())


def test_new_items_escalate_and_are_learned_once_named(played: Any) -> None:
    """Promise: new items are noticed and escalate and once they are named the loop learns them."""
    first, second = played["periods"]
    assert first["noticed_after"] is not None
    assert first["late_kept"] < 0.7 * first["late"]
    assert first["promoted"]
    assert second["version"] != first["version"]
    assert second["late"] == 0
    assert second["right"] / second["items"] > 0.9
