"""The packaged reviews: sentences of four domains with mean human ratings from -4 to 4 (Hutto and Gilbert, 2014).

A sentence rated above 0.5 is positive, below -0.5 negative; sentences in between are dropped as undecided. Source:
ICWSM 2014.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from kcm.assets.manifest import is_intact
from kcm.assets.resolve import find_asset
from kcm.errors import AssetError
from kcm.tasks.rows import SourceRow
from kcm.tasks.sources import Source, SourceConfig, refuse_vectors

LABELS = ("negative", "positive")
_UNDECIDED = 0.5

# Ids of reviews and editorials are document_sentence: sentences of one document stay together.
_DOMAINS = {
    "reviews": ("amazonReviewSnippets_GroundTruth.txt", True),
    "movies": ("movieReviewSnippets_GroundTruth.txt", False),
    "editorials": ("nytEditorialSnippets_GroundTruth.txt", True),
    "tweets": ("tweets_GroundTruth.txt", False),
}


class ReviewsSource(SourceConfig):
    """Amazon reviews, movie reviews, newspaper editorials and tweets, each a domain."""

    def build(self, assets_dir: Path, vectors: Sequence[str] = ()) -> Source:
        refuse_vectors(vectors, "reviews")
        return Source.of_records("reviews", read_reviews(assets_dir), LABELS)


def read_reviews(assets_dir: Path) -> Iterator[SourceRow]:
    """Records of all four domains, in the order of the files. Raises AssetError if the asset is missing."""
    folder = find_asset("reviews", assets_dir)
    if not is_intact(folder):
        hint = "Run `python tools/assets.py reviews` in kcm's repository"
        raise AssetError("asset 'reviews' has not been fetched", where=str(assets_dir), hint=hint)
    for domain, (file, has_documents) in _DOMAINS.items():
        yield from _domain(domain, folder / file, has_documents)


def _domain(domain: str, path: Path, has_documents: bool) -> Iterator[SourceRow]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            number, rating, text = line.rstrip("\n").split("\t", maxsplit=2)
            if abs(float(rating)) <= _UNDECIDED:
                continue
            yield SourceRow(
                id=f"{domain}/{number}",
                text=text,
                label=LABELS[float(rating) > 0],
                group=f"{domain}/{number.partition('_')[0]}" if has_documents else "",
                task=domain,
            )
