"""The configuration of an encoder, told apart by its kind."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from kcm.encoders.image import ImageEncoderConfig
from kcm.encoders.pixels import PixelsConfig
from kcm.encoders.text import TextEncoderConfig

AnyEncoderConfig = TextEncoderConfig | PixelsConfig | ImageEncoderConfig


def _kind(value: Any) -> str | None:
    """The tag of a section; one that does not say is an encoder of texts."""
    return value.get("kind", "text") if isinstance(value, dict) else getattr(value, "kind", None)


EncoderConfig = Annotated[
    Annotated[TextEncoderConfig, Tag("text")]
    | Annotated[PixelsConfig, Tag("pixels")]
    | Annotated[ImageEncoderConfig, Tag("image")],
    Discriminator(_kind),
]
