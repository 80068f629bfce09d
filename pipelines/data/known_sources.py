"""Sources that were read before: one whose files are the same is not read again to know what it holds.

The storage remembers, by all that decides a sequence (configuration, and the stamp of every shard), the digest of the
rows that came of it. A stamp changes whenever the content may have changed, so a file that was merely touched is read
again, and has the digest that it had.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from kcm.tasks.sources import Shard, Source
from pipelines.store.control.records import Control

_KEYS = "sources"
_ASKED_AT_ONCE = 32  # an object store takes some milliseconds to give a stamp


@dataclass(frozen=True)
class KnownSource:
    """What a storage remembers of a source; `key` is None where nothing tells whether it has changed."""

    control: Control
    source: Source
    decides: Mapping[str, Any]
    key: str | None

    @classmethod
    def of(cls, control: Control, source: Source, decides: Mapping[str, Any]) -> KnownSource:
        """The source as it is now; `decides` is what else makes the sequence, as plain values."""
        return cls(control, source, decides, _key(source, decides))

    @property
    def digest(self) -> str | None:
        """The digest of the sequence that was made of it; None where there was none."""
        found = self.control.get(f"{_KEYS}/{self.key}") if self.key else None
        return found.value.decode() if found else None

    def remember(self, digest: str) -> None:
        """Note the digest of the sequence that was made of it, unless the source has changed meanwhile."""
        if self.key and self.key == _key(self.source, self.decides):
            self.control.create(f"{_KEYS}/{self.key}", digest.encode())


def _key(source: Source, decides: Mapping[str, Any]) -> str | None:
    stamps = _stamps(source.shards)
    if None in stamps:
        return None
    content = [source.name, source.labels, source.out_of_scope_label, stamps, dict(decides)]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _stamps(shards: Sequence[Shard]) -> list[str | None]:
    """The stamp of every shard, in order; of none where the first has none."""
    if not shards or shards[0].stamp() is None:
        return [None]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
        return list(threads.map(lambda shard: shard.stamp(), shards))
