"""The packaged reviews: domains, labels and documents from files in their layout."""

import pytest

from kcm.assets.manifest import write_manifest
from kcm.errors import AssetError
from kcm.tasks.readers.reviews import read_reviews
from kcm.tasks.rows import SourceRow

LINES = {
    "amazonReviewSnippets_GroundTruth.txt": "1_1\t-0.9\tno sound .\r\n1_2\t-0.5\tso so\r\n12_3\t0.51\tnice\ttab\r\n",
    "movieReviewSnippets_GroundTruth.txt": "1\t2.26666666667\tThe clichés\u0085disappear\r\n",
    "nytEditorialSnippets_GroundTruth.txt": "3_7\t-2\tdull\r\n",
    "tweets_GroundTruth.txt": "1\t2.7\tyay &amp; yay\r\n",
}


@pytest.fixture
def assets_dir(tmp_path):
    """A fetched asset with files of its own."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    for name, lines in LINES.items():
        (folder / name).write_bytes(lines.encode())
    write_manifest(folder, list(LINES), {})
    return tmp_path


def test_ratings_become_labels_and_sentences_keep_documents(assets_dir):
    assert list(read_reviews(assets_dir)) == [
        SourceRow("reviews/1_1", "no sound .", "negative", "reviews/1", "reviews"),
        SourceRow("reviews/12_3", "nice\ttab", "positive", "reviews/12", "reviews"),
        SourceRow("movies/1", "The clichés\u0085disappear", "positive", "", "movies"),
        SourceRow("editorials/3_7", "dull", "negative", "editorials/3", "editorials"),
        SourceRow("tweets/1", "yay &amp; yay", "positive", "", "tweets"),
    ]


def test_reviews_that_were_not_fetched_name_the_command(tmp_path):
    with pytest.raises(AssetError, match=r"tools/assets\.py reviews"):
        list(read_reviews(tmp_path))
