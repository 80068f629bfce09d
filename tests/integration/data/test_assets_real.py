"""The real assets: fetched, whole, with the rows they are known to have and the sense they are known to make."""

import pytest
import torch

from benchmarks.sequences import build_sequence
from kcm.assets.manifest import read_manifest
from kcm.assets.resolve import resolve
from kcm.encoders.efficientnet import load_efficientnet
from kcm.tasks import TasksConfig
from tools.assets import fetch
from tools.catalog import ASSETS

pytestmark = pytest.mark.integration

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
EFFICIENTNET = "efficientnet-lite2"
TESTED = [name for name, asset in ASSETS.items() if not asset.by_name] + ["SmolLM2-135M-Instruct-GGUF", EFFICIENTNET]


@pytest.fixture(scope="module", autouse=True)
def _fetched(assets_dir):
    for name in TESTED:
        fetch(name, assets_dir)


@pytest.mark.parametrize("name", TESTED)
def test_an_asset_has_its_files_from_the_pinned_packages(name, assets_dir):
    assert all((assets_dir / name / file).is_file() for file in ASSETS[name].files)
    assert read_manifest(assets_dir / name)["packages"] == ASSETS[name].hashes


def test_the_source_distribution_gives_the_reviews_anew(tmp_path):
    folder = fetch("reviews", tmp_path)
    assert (folder / "tweets_GroundTruth.txt").read_bytes().startswith(b"1\t2.726315789\tSomehow I was blessed")


def test_the_reviews_have_four_domains_of_the_published_sizes(assets_dir):
    """Of 2,943 sentences of reviews five are left out: reviews of different splits have them in common."""
    sequence = build_sequence(TasksConfig(), assets_dir, seed=0)
    assert [(task.name, len(sequence.tasks[i].rows)) for i, task in enumerate(sequence.tasks)] == [
        ("reviews", 2938),
        ("movies", 10043),
        ("editorials", 2788),
        ("tweets", 3362),
    ]
    assert sequence.label_names == ("negative", "positive")
    assert len(sequence.bad_rows) == 5


def test_efficientnet_gives_what_the_code_of_its_authors_gives(assets_dir):
    # Projections of the features, recorded from package efficientnet-lite-pytorch 0.1.0 with these weights.
    expected = {
        96: (287.934, -28.132, 8.519, -16.098),
        97: (312.548, -17.213, 15.640, -28.449),
        160: (161.106, 1.336, -1.301, -0.051),
    }
    model = load_efficientnet(resolve(EFFICIENTNET, assets_dir))
    waves = torch.cos(torch.arange(1280)[:, None] * torch.tensor([0.0, 0.1, 0.7, 1.9]))
    for side, projections in expected.items():
        pixels = torch.sin(torch.arange(3 * side * side) * 0.37).reshape(1, 3, side, side)
        torch.testing.assert_close((model(pixels) @ waves)[0], torch.tensor(projections), atol=0.02, rtol=1e-3)
