"""Encoders of one part of a content, told apart by their kind: what others may be made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from kcm.encoders.image import ImageEncoderConfig
from kcm.encoders.pixels import PixelsConfig
from kcm.encoders.text import TextEncoderConfig

AnySingleConfig = TextEncoderConfig | PixelsConfig | ImageEncoderConfig


def kind_of(value: Any) -> str | None:
    """The tag of a section; one that does not say is an encoder of texts."""
    return value.get("kind", "text") if isinstance(value, dict) else getattr(value, "kind", None)


SingleConfig = Annotated[
    Annotated[TextEncoderConfig, Tag("text")]
    | Annotated[PixelsConfig, Tag("pixels")]
    | Annotated[ImageEncoderConfig, Tag("image")],
    Discriminator(kind_of),
]
