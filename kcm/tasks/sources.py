"""Where rows come from: the packaged reviews, local files, the hub, or pairs made of pictures and their captions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from kcm.tasks import files, pairs, reviews
from kcm.tasks.columns import to_records
from kcm.tasks.files import FilesSource
from kcm.tasks.hub import HubSource, read_hub
from kcm.tasks.pairs import PairsSource
from kcm.tasks.reviews import ReviewsSource
from kcm.tasks.rows import Record

SourceConfig = Annotated[ReviewsSource | FilesSource | HubSource | PairsSource, Field(discriminator="kind")]


@dataclass(frozen=True)
class Source:
    """Records, the label list (empty where the source has none), and the label that means none of the list."""

    name: str
    records: Iterable[Record]
    labels: tuple[str, ...] = ()
    out_of_scope_label: str | None = None


def open_source(config: ReviewsSource | FilesSource | HubSource | PairsSource, assets_dir: Path) -> Source:
    """Open the configured source. Raises DataError or AssetError when it is missing or has not the columns named."""
    if isinstance(config, ReviewsSource):
        return Source("reviews", reviews.read_reviews(assets_dir), reviews.LABELS)
    if isinstance(config, FilesSource):
        tables = files.read_files(config)
        records = to_records(tables, config, where=config.path)
        return Source(Path(config.path).stem, records, config.labels, files.out_of_scope_label(config, tables))
    if isinstance(config, PairsSource):
        return Source("pairs", pairs.read_pairs(config), pairs.LABELS)
    records = to_records(read_hub(config), config, where=config.id)
    return Source(config.id, records, config.labels, config.out_of_scope_label)
