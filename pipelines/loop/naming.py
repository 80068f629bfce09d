"""Classes that came with the traffic: groups of items that may be one, and the names that a person gives, once.

A name is an act of the operator, written down in the storage: the next `kcm update` has the large model answer with the
longer list, and learns the class. Groups are a help for people and promise nothing.
Shapes: N items, D features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.cluster import AgglomerativeClustering
from sklearn.feature_extraction.text import TfidfVectorizer

from kcm.errors import ConfigError, DataError
from pipelines.config import RunConfig
from pipelines.loop.judged import row_ids
from pipelines.loop.parent import Parent
from pipelines.loop.state import LoopState, log_reader, watermark_of, window_start
from pipelines.registry.champion import utc_now
from pipelines.store.control.journal import Journal
from pipelines.store.control.records import Control

FEWEST, MOST = 10, 2000  # items of a group that is shown; items that are grouped, the latest ones
FARTHEST = 0.5  # mean cosine distance between the items of two groups that are one
EXAMPLES, WORDS = 5, 2


@dataclass(frozen=True)
class ItemGroup:
    """Items that the champion escalated and that lie together.

    `agreement` is the share of them that the small side would have answered as the large model did: low for a class
    that neither knows. `callers` is how many sent them: of one caller's items nobody should make a class. `answers` are
    the large model's commonest ones, `proposal` is made of telling words. `centre` [D] is the mean of the items'
    features at unit length, `items` their ids.
    """

    size: int
    callers: int
    agreement: float
    answers: dict[str, int]
    proposal: str
    examples: list[str]
    centre: list[float]
    items: list[str]

    def is_one_with(self, centre: list[float]) -> bool:
        """Whether this group and one with another centre are one: their dot product is the mean cosine of items."""
        return len(centre) == len(self.centre) and 1 - float(np.dot(self.centre, centre)) <= FARTHEST


class ClassNames:
    """What people said of classes that came with the traffic: new labels, what is a known label, what is no class.

    It is in the store's control records. What is said last of a name stands, until it is withdrawn. Labels that the
    configuration names (`update.more_labels`) are `configured`.
    """

    def __init__(self, control: Control, application: str, configured: Sequence[str] = ()) -> None:
        self._journal = Journal(control, f"loop/{application}/classes")
        self._configured = configured

    @classmethod
    def of(cls, config: RunConfig) -> ClassNames:
        """Those of a run's application."""
        configured = config.update.more_labels if config.update else ()
        return cls(LoopState.of(config).store.control, config.name, configured)

    def labels(self) -> tuple[str, ...]:
        """The labels of the configuration, and those that were named, in the order in which they were named first."""
        return tuple(dict.fromkeys((*self._configured, *(entry["name"] for entry in self._standing("label")))))

    def ignored(self) -> dict[str, list[float]]:
        """The centre of each group that is no class, by the name that was proposed for it."""
        return {entry["name"]: entry["centre"] for entry in self._standing("ignored")}

    def same(self) -> dict[str, str]:
        """The label that each name stands for, of names that are no label of their own."""
        found = {entry["name"]: entry["label"] for entry in self._standing("same")}
        return {name: found.get(label, label) for name, label in found.items()}

    def items(self) -> dict[str, str]:
        """The label of every item, by its id, of the groups that are a label which existed."""
        return {item: entry["label"] for entry in self._standing("same") for item in entry["items"]}

    def name(self, label: str, known: Collection[str]) -> None:
        """Name a label. ConfigError for one that is blank, or that exists, in whatever spelling."""
        spelled = {_plain(each): each for each in (*known, *self.labels())}
        if not _plain(label):
            raise ConfigError("a label needs a letter or a digit", where="--name")
        if (same := spelled.get(_plain(label))) is not None:
            raise ConfigError(f"there is a label {same!r} already", where="--name", hint="Give that one as feedback")
        self._say(label, "label")

    def identify(self, name: str, label: str, known: Collection[str], groups: Collection[ItemGroup] = ()) -> None:
        """Say that `name` is `label`: the items of the group of this proposed name, or what callers call so.

        A label that was named and not learned is one with the other then. ConfigError for a label that is none, and for
        a name that a version has learned.
        """
        if label not in (*known, *self.labels()) or label == name:
            raise ConfigError(f"there is no label {label!r}", where="--is", hint="Name it first, by --name")
        if name in known:
            hint = "`kcm run` anew with rows in which they are one"
            raise ConfigError(f"a version has learned {name!r} as a label of its own", where="--is", hint=hint)
        items = next((group.items for group in groups if group.proposal == name), [])
        self._say(name, "same", label=label, items=items)

    def ignore(self, name: str, groups: Collection[ItemGroup]) -> None:
        """Show the group of this proposed name no more, nor any that would be one with it. ConfigError without it."""
        centre = next((group.centre for group in groups if group.proposal == name), None)
        if centre is None:
            raise ConfigError(f"no group has the proposed name {name!r}", where="--ignore", hint="`--new` shows them")
        self._say(name, "ignored", centre=centre)

    def withdraw(self, name: str) -> None:
        """Take back what was said of a name, as long as no version has learned it. ConfigError for any other name."""
        standing = [entry["name"] for said in ("label", "same", "ignored") for entry in self._standing(said)]
        if name not in standing:
            hint = f"Known are: {', '.join(standing) or 'none'}"
            raise ConfigError(f"nobody has named or ignored {name!r}", where="--withdraw", hint=hint)
        self._say(name, "withdrawn")

    def without_ignored(self, groups: Collection[ItemGroup]) -> list[ItemGroup]:
        """The groups but for those that would be one with an ignored one, by an encoder of as many features."""
        ignored = self.ignored().values()
        return [group for group in groups if not any(group.is_one_with(centre) for centre in ignored)]

    def _standing(self, said: str) -> list[dict[str, Any]]:
        last = {entry["name"]: entry for entry in self._journal.entries()}
        return [entry for entry in last.values() if entry["said"] == said]

    def _say(self, name: str, said: str, **more: Any) -> None:
        self._journal.append(lambda _: {"name": name, "said": said, "at": utc_now()} | more)


def known_labels(config: RunConfig) -> tuple[str, ...]:
    """The labels of the champion."""
    state = LoopState.of(config)
    return Parent.of(state.store, state.champions.agreed().champion).bundle.answer_names


def new_groups(config: RunConfig) -> list[ItemGroup]:
    """The groups among what was escalated since the last promotion. DataError where their features are not stored."""
    champion = LoopState.of(config).champions.agreed().champion
    with log_reader(config) as log:
        return groups_of(log.window(config.application, window_start(config, champion), watermark_of(config)))


def groups_of(window: pa.Table) -> list[ItemGroup]:
    """The groups of a window of the log, the largest first."""
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
    groups = [_group(rows, features_ND, *each) for each in zip(members, proposals, strict=True)]
    return sorted(groups, key=lambda group: -group.size)


def _group(rows: pa.Table, features_ND: np.ndarray, places: np.ndarray, proposal: str) -> ItemGroup:
    inside = rows.take(pa.array(places))
    large, small = inside["large_label"].to_pylist(), inside["small_label"].to_pylist()
    typical = places[np.argsort(-features_ND[places] @ features_ND[places].mean(0), kind="stable")]
    return ItemGroup(
        size=len(places),
        callers=len(set(inside["caller"].to_pylist())),
        agreement=float(np.mean([a == b for a, b in zip(large, small, strict=True)])),
        answers=dict(Counter(label for label in large if label is not None).most_common(3)),
        proposal=proposal,
        examples=_texts(rows, typical[:EXAMPLES]),
        centre=features_ND[places].mean(0).tolist(),
        items=row_ids(inside).to_pylist(),
    )


def _texts(rows: pa.Table, places: np.ndarray) -> list[str]:
    return [text or "" for text in rows["text"].take(pa.array(places)).to_pylist()]


def _proposals(documents: list[str]) -> list[str]:
    """A name for each group by the words that tell it from the others; a number where there are no words."""
    try:
        vectorizer = TfidfVectorizer(stop_words="english", sublinear_tf=True)
        weight_GW = vectorizer.fit_transform(documents).toarray()
    except ValueError:  # no words at all, as of pictures
        return [f"group_{number}" for number in range(1, len(documents) + 1)]
    words: Any = vectorizer.get_feature_names_out()
    return ["_".join(words[np.argsort(-row, kind="stable")[:WORDS]]) for row in weight_GW]


def _plain(label: str) -> str:
    """A label without what people spell differently: case, spaces and signs."""
    return "".join(sign for sign in label.casefold() if sign.isalnum())
