"""The content of a row: a text, a picture, a vector of numbers, or several of them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kcm.errors import DataError

Part = Literal["text", "image", "vector"]
PARTS: tuple[Part, ...] = ("text", "image", "vector")
TEXT: frozenset[Part] = frozenset({"text"})
IMAGE: frozenset[Part] = frozenset({"image"})
VECTOR: frozenset[Part] = frozenset({"vector"})


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """A text, a picture, a vector, or several of them; contents with equal keys are equal.

    The picture is the encoded file's bytes, which only encoders decode. `vector` is float32 [D], computed outside kcm.
    `pixels` is the picture decoded by the `read` of one encoder, for that encoder only; None before.
    """

    text: str = ""
    image: bytes = field(default=b"", repr=False)
    pixels: NDArray[np.generic] | None = field(default=None, repr=False)
    vector: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        """Cost of encoding, for batching: the number of characters; all pictures have one size."""
        return len(self.text)

    @property
    def key(self) -> str:
        """A key that equal contents share: the text itself if there is nothing else."""
        key = f"{self.text}\0{image_digest(self.image)}" if self.image else self.text
        return key if self.vector is None else f"{key}\0vector {image_digest(self.vector.tobytes())}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Content) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def parts(self) -> frozenset[Part]:
        """The parts that are present; a blank text is not."""
        is_present: dict[Part, bool] = {
            "text": bool(self.text.strip()),
            "image": bool(self.image),
            "vector": self.vector is not None,
        }
        return frozenset(part for part, is_there in is_present.items() if is_there)

    def lacks(self, parts: Collection[Part]) -> Part | None:
        """The first missing part among `parts`, in the order of `PARTS`; None if all are present."""
        return min(frozenset(parts) - self.parts, key=PARTS.index, default=None)


PROBE = Content(
    "Does the cascade answer?",
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415478da63f8ffff3f0005fe02fe"
        "331295140000000049454e44ae426082"
    ),
)
"""What every model must be able to read: a short text, and a PNG of one white pixel."""


class PartError(Exception):
    """A part of a content that cannot be used; the message is the reason."""


class UnreadableError(DataError):
    """Contents that cannot be read; `faults` has the reasons by position among the inputs."""

    def __init__(self, faults: Mapping[int, str]) -> None:
        first, reason = next(iter(faults.items()))
        super().__init__(f"{len(faults)} inputs cannot be read, input {first}: {reason}")
        self.faults = dict(faults)

    def __reduce__(self) -> tuple[object, ...]:
        return UnreadableError, (self.faults,)


def contents(texts: Iterable[str], images: Iterable[bytes] | None = None) -> list[Content]:
    """One content per row, from columns; only texts without `images`."""
    if images is None:
        return [Content(text) for text in texts]
    return [Content(text, image) for text, image in zip(texts, images, strict=True)]


def image_digest(image: bytes) -> str:
    """Hexadecimal SHA-256 of a picture's bytes."""
    return hashlib.sha256(image).hexdigest()
