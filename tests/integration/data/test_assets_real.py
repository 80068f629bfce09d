"""The real assets: fetched, whole, with the rows they are known to have and the sense they are known to make."""

import numpy as np
import pytest
import torch

from benchmarks.sequences import build_sequence
from jobs.assets import ASSETS, fetch
from kcm.assets import resolve
from kcm.assets.manifest import read_manifest
from kcm.encoders.efficientnet import load_efficientnet
from kcm.encoders.text import TextEncoder, TextEncoderConfig
from kcm.inputs.content import contents
from kcm.large import fit_head
from kcm.tasks import TasksConfig

pytestmark = pytest.mark.integration

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
EFFICIENTNET = "efficientnet-lite2"
TESTED = [name for name, asset in ASSETS.items() if not asset.by_name] + ["SmolLM2-135M-Instruct-GGUF", EFFICIENTNET]


@pytest.fixture(scope="module", autouse=True)
def _fetched(assets_dir):
    for name in TESTED:
        fetch(name, assets_dir)


@pytest.fixture(scope="module")
def encoder(assets_dir) -> TextEncoder:
    return TextEncoder(TextEncoderConfig(model=MINILM), assets_dir)


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


def test_like_sentences_are_closer_than_unlike_ones(encoder):
    good, better, bank = encoder.encode(contents(["a good film", "I loved this movie", "the bank closed my account"]))
    assert good @ better > 0.5 > 0.2 > good @ bank


def test_a_feature_of_minilm_that_never_varies_is_known(encoder, assets_dir):
    texts = (
        build_sequence(TasksConfig(max_rows_per_task=100, salt=1), assets_dir, seed=0).tasks[1].rows["text"].to_pylist()
    )
    features = encoder.encode(contents(texts))
    assert features.shape == (len(texts), 384)
    assert features.std(0).min() < 1e-3 * np.median(features.std(0))


def test_a_linear_head_on_minilm_tells_good_tweets_from_bad(encoder, assets_dir):
    rows = build_sequence(TasksConfig(max_rows_per_task=800), assets_dir, seed=0).tasks[3].rows.to_pandas()
    features, labels = encoder.encode(contents(rows.text)), rows.label.to_numpy()
    train, test = (rows.split == "train").to_numpy(), (rows.split == "test").to_numpy()
    head = fit_head(features[train], labels[train], rows.id[train].tolist(), 2).head
    assert (head.probabilities(features[test]).argmax(1) == labels[test]).mean() > 0.75


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
