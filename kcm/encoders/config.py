"""The configuration of an encoder, told apart by its kind."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Tag

from kcm.encoders.image import ImageEncoderConfig
from kcm.encoders.image_text import ImageTextConfig
from kcm.encoders.pixels import PixelsConfig
from kcm.encoders.single import AnySingleConfig, kind_of
from kcm.encoders.text import TextEncoderConfig

AnyEncoderConfig = AnySingleConfig | ImageTextConfig

EncoderConfig = Annotated[
    Annotated[TextEncoderConfig, Tag("text")]
    | Annotated[PixelsConfig, Tag("pixels")]
    | Annotated[ImageEncoderConfig, Tag("image")]
    | Annotated[ImageTextConfig, Tag("image_text")],
    Discriminator(kind_of),
]
