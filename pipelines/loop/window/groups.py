"""Groups of items that arrived with the traffic and may be new classes: clustered by features, named for people.

Groups help people and promise nothing. Shapes: N items, D features.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.cluster import AgglomerativeClustering
from sklearn.feature_extraction.text import TfidfVectorizer

from kcm.errors import DataError
from pipelines.config import RunConfig
from pipelines.loop.parent import Parent
from pipelines.loop.state import LoopState, log_reader, window_start
from pipelines.loop.window.judged_window import row_ids

FEWEST, MOST = 10, 2000  # items shown per group; number of items grouped, the latest ones
FARTHEST = 0.5  # mean cosine distance within a group
EXAMPLES, WORDS = 5, 2


@dataclass(frozen=True)
class ItemGroup:
    """Escalated items that lie close together.

    `agreement` is the share of them on which the small model agreed with the large model: low for a class that neither
    knows. `callers` counts their senders: nobody should make a class from one caller's items. `answers` are the large
    model's most frequent answers; `proposal` is a name made of characteristic words; `items` are their ids.
    """

    size: int
    callers: int
    agreement: float
    answers: dict[str, int]
    proposal: str
    examples: list[str]
    items: list[str]


def known_labels(config: RunConfig) -> tuple[str, ...]:
    """The labels of the champion."""
    state = LoopState.of(config)
    return Parent.of(state.store, state.champions.agreed().champion).bundle.answer_names


def new_groups(config: RunConfig) -> list[ItemGroup]:
    """The groups among the items escalated since the last promotion. DataError if their features are not stored."""
    champion = LoopState.of(config).champions.agreed().champion
    with log_reader(config) as log:
        window = log.window(window_start(config, champion), log.watermark())
    return groups_of(window)


def groups_of(window: pa.Table) -> list[ItemGroup]:
    """The groups of a window of the log, largest first."""
    rows = window.filter(pc.and_(pc.equal(window["route"], "large"), window["features"].is_valid()))
    if not len(rows) and len(window):
        raise DataError(
            "the log holds no features of escalated items",
            where="serve.feedback.store_payloads",
            hint="Set it to all, and wait for traffic",
        )
    rows = rows.slice(max(0, len(rows) - MOST))
    if len(rows) < FEWEST:
        return []
    features_ND = np.array(rows["features"].to_pylist(), dtype=np.float64)
    features_ND /= np.maximum(np.linalg.norm(features_ND, axis=1, keepdims=True), 1e-12)
    grouping = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=FARTHEST)
    group_N = grouping.fit_predict(features_ND)
    members = [places for g in np.unique(group_N) if len(places := np.flatnonzero(group_N == g)) >= FEWEST]
    proposals = _proposals([" ".join(_texts(rows, places)) for places in members])
    groups = [_group(rows, features_ND, *group) for group in zip(members, proposals, strict=True)]
    return sorted(groups, key=lambda group: -group.size)


def _group(rows: pa.Table, features_ND: np.ndarray, places: np.ndarray, proposal: str) -> ItemGroup:
    member_rows = rows.take(pa.array(places))
    large, small = member_rows["large_label"].to_pylist(), member_rows["small_label"].to_pylist()
    typical = places[np.argsort(-features_ND[places] @ features_ND[places].mean(0), kind="stable")]
    return ItemGroup(
        size=len(places),
        callers=len(set(member_rows["caller"].to_pylist())),
        agreement=float(np.mean([a == b for a, b in zip(large, small, strict=True)])),
        answers=dict(Counter(label for label in large if label is not None).most_common(3)),
        proposal=proposal,
        examples=_texts(rows, typical[:EXAMPLES]),
        items=row_ids(member_rows).to_pylist(),
    )


def _texts(rows: pa.Table, places: np.ndarray) -> list[str]:
    return [text or "" for text in rows["text"].take(pa.array(places)).to_pylist()]


def _proposals(documents: list[str]) -> list[str]:
    """A name for each group from its characteristic words; a number if there are no words."""
    try:
        vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True)
        weight_GW = vectorizer.fit_transform(documents).toarray()
    except ValueError:  # no words, as with pictures
        return [f"group_{number}" for number in range(1, len(documents) + 1)]
    words: Any = vectorizer.get_feature_names_out()
    return ["_".join(words[np.argsort(-row, kind="stable")[:WORDS]]) for row in weight_GW]
