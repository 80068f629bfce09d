"""What was classified, kept with its decision where the configuration says so, and for as long as it says."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from kcm.inputs.content import Content
from pipelines.serve.log.tables import PAYLOADS

Kept = Literal["none", "text", "all"]

STEP = 500  # payloads that are deleted in one transaction: other writes wait for it


@dataclass(frozen=True)
class Payload:
    """The parts of an input that are kept; features are float32, little-endian."""

    text: str | None = None
    image: bytes | None = None
    features: bytes | None = None

    @property
    def num_bytes(self) -> int:
        """How much it takes; a character counts as one."""
        return sum(len(part) for part in (self.text, self.image, self.features) if part)

    @classmethod
    def of(cls, content: Content, features_D: NDArray[np.float32], kept: Kept) -> Payload | None:
        """What is kept of an input."""
        match kept:
            case "none":
                return None
            case "text":
                return cls(content.text) if content.text else None
            case "all":
                return cls(content.text or None, content.image or None, as_bytes(features_D))


def as_bytes(values: NDArray[np.floating]) -> bytes:
    """The values as float32, little-endian."""
    return values.astype("<f4").tobytes()


def expired(
    connection: Connection, application: str, *, before: datetime.datetime | None, keep_bytes: int | None
) -> list[tuple[str, int]]:
    """Items whose payloads are older than `before`, and the oldest of those that exceed `keep_bytes`; STEP at most."""
    p = PAYLOADS.c
    own = (p.application == application) & (p.num_bytes > 0)  # an empty one stays in the place of what is forgotten
    oldest = select(p.request_id, p.item, p.num_bytes, p.stored_at).where(own).order_by(p.stored_at).limit(STEP)
    excess = 0
    if keep_bytes is not None:
        excess = int(connection.scalar(select(func.sum(p.num_bytes)).where(own)) or 0) - keep_bytes
    items = []
    for request_id, item, num_bytes, stored_at in connection.execute(oldest):
        # SQLite gives times without their zone, which is UTC.
        if excess <= 0 and not (before and stored_at.replace(tzinfo=datetime.UTC) < before):
            break
        items.append((request_id, item))
        excess -= num_bytes
    return items
