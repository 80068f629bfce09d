"""`kcm label` on a Ray cluster, and on a table in a bucket: the same labels bought and the same result."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray
from typer.testing import CliRunner

from jobs.cli import app
from kcm.errors import ConfigError
from pipelines.batch.on_cluster import map_on_cluster
from tests.tiny_bert import save_bert

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]
WORDS = {"good": "positive", "bad": "negative", "dull": "neutral"}
NOUNS = ("film", "play", "book", "song")


def address() -> str:
    return str(ray.get_runtime_context().gcs_address)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"), [*WORDS, *NOUNS])


@pytest.fixture(scope="module")
def table() -> bytes:
    """300 different texts, of which the small model gets some wrong."""
    rng = np.random.default_rng(0)
    words, nouns = rng.choice(list(WORDS), (300, 2)), rng.choice(NOUNS, (300, 5))
    texts = [" ".join([*some, *others, str(n)]) for n, (some, others) in enumerate(zip(words, nouns, strict=True))]
    frame = pd.DataFrame({"text": texts, "said": [WORDS[word] for word in words[:, 0]]})
    return frame.to_csv(index=False).encode()


@pytest.fixture
def labelled(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[bytes, bytes]]:
    """Run the command in a folder, and as a user, of their own; the table and the certificate that it writes."""

    def run(name: str, table: str, *more: str) -> tuple[bytes, bytes]:
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("XDG_DATA_HOME", str(folder / "user"))
        words = ["label", table, "--answers", "said", "--text", "text", "--target", ".8", "--encoder", str(encoder)]
        done = CliRunner().invoke(app, [*words, "--assets-path", str(tmp_path / "assets"), "-o", "out.csv", *more])
        assert done.exit_code == 0, done.output
        return (folder / "out.csv").read_bytes(), (folder / "out.certificate.json").read_bytes()

    return run


def test_cluster_and_bucket_give_the_result_of_one_process(
    labelled: Callable[..., tuple[bytes, bytes]], put: Callable[[str, bytes], str], table: bytes, tmp_path: Path
) -> None:
    """Promise: neither the machine that encodes nor the place of the table changes a label or what is bought."""
    file = tmp_path / "films.csv"
    file.write_bytes(table)

    here = labelled("here", str(file))

    assert 50 < here[0].count(b",llm,") < 300
    assert labelled("cluster", str(file), "--cluster", address()) == here
    assert labelled("bucket", put("films.csv", table)) == here


def test_workers_of_the_cluster_map_in_order() -> None:
    """Promise: other processes do the work, and results come in the order of the items."""
    results = list(map_on_cluster(address(), 0, lambda: lambda item: (item, os.getpid()), range(20)))

    assert [item for item, _ in results] == list(range(20))
    assert os.getpid() not in {worker for _, worker in results}


def test_gpus_that_a_cluster_lacks_end_the_encoding_in_one_line() -> None:
    """Promise: `--gpus-per-worker` reserves GPUs; a fixed cluster without them is not waited for."""
    with pytest.raises(ConfigError, match="1 workers need 1 GPUs, and the cluster has 0"):
        list(map_on_cluster(address(), 1, lambda device: lambda item: device, range(2)))
