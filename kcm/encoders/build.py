"""From a configuration to an encoder: the one place that knows all kinds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from kcm.assets import resolve
from kcm.encoders.aligned import AlignedDual, aligned_identity, read_towers
from kcm.encoders.alignment import AlignmentHead
from kcm.encoders.base import Encoder
from kcm.encoders.config import AnyEncoderConfig
from kcm.encoders.dual import DualEncoder, PretrainedDual, pretrained_identity, pretrained_reader
from kcm.encoders.image import ImageEncoder, ImageEncoderConfig, image_identity, image_side
from kcm.encoders.image_text import ImageTextConfig, ImageTextEncoder
from kcm.encoders.pixels import PixelsConfig, PixelsEncoder, pixels_identity
from kcm.encoders.text import TextEncoder, text_identity
from kcm.errors import ConfigError
from kcm.inputs.content import Content
from kcm.inputs.pictures import with_square

# Encoders are frozen: versions of a model that share one need it in memory once, for as long as any of them is used.
_IN_USE: WeakValueDictionary[tuple[AnyEncoderConfig, str, str], Encoder] = WeakValueDictionary()
_BUILDING = threading.RLock()  # towers are built within what they are towers of


def build_encoder(config: AnyEncoderConfig, assets_dir: Path, device: str = "cpu") -> Encoder:
    """The encoder that `config` describes, ready to encode; the same object where this process uses an equal one.

    Raises AssetError where weights are missing or damaged, ConfigError where the configuration does not fit them.
    """
    with _BUILDING:
        key = config, encoder_identity(config, assets_dir), device
        encoder = _IN_USE.get(key)
        if encoder is None:
            _IN_USE[key] = encoder = _built(config, assets_dir, device)
        return encoder


def _built(config: AnyEncoderConfig, assets_dir: Path, device: str) -> Encoder:
    if isinstance(config, PixelsConfig):
        return PixelsEncoder(config)
    if isinstance(config, ImageTextConfig):
        return ImageTextEncoder(config, _dual(config, assets_dir, device), encoder_identity(config, assets_dir))
    folder = resolve(config.model, assets_dir)
    if isinstance(config, ImageEncoderConfig):
        return ImageEncoder(config, folder, device)
    return TextEncoder(config, folder, device)


def build_reader(config: AnyEncoderConfig, assets_dir: Path) -> Callable[[Content], Content]:
    """The `read` of the encoder that `config` describes, without its weights. Raises what `build_encoder` raises."""
    if "image" not in config.reads:
        return lambda content: content
    if isinstance(config, PixelsConfig):
        return partial(with_square, side=config.side, max_pixels=config.max_pixels)
    if isinstance(config, ImageTextConfig):
        folder = _dual_folder(config, assets_dir)
        towers = read_towers(folder)
        return build_reader(towers.image, assets_dir) if towers else pretrained_reader(folder, config.max_pixels)
    assert isinstance(config, ImageEncoderConfig)  # no other kind reads pictures
    side = image_side(config, resolve(config.model, assets_dir))
    return partial(with_square, side=side, max_pixels=config.max_pixels)


def encoder_identity(config: AnyEncoderConfig, assets_dir: Path) -> str:
    """The identity of the encoder that `config` describes, without loading weights; raises what `build_encoder` raises.

    Names and batch sizes do not enter: a folder may be called anything.
    """
    if isinstance(config, PixelsConfig):
        return pixels_identity(config)
    if isinstance(config, ImageTextConfig):
        return _dual_identity(config, assets_dir)
    folder = resolve(config.model, assets_dir)
    if isinstance(config, ImageEncoderConfig):
        return image_identity(config, folder)
    return text_identity(config, folder)


def _dual_identity(config: ImageTextConfig, assets_dir: Path) -> str:
    folder = _dual_folder(config, assets_dir)
    if towers := read_towers(folder):
        below = (encoder_identity(tower, assets_dir) for tower in (towers.image, towers.text))
        return f"{aligned_identity(folder, *below)}-{config.output}"
    return f"{pretrained_identity(folder, config.max_length, config.max_pixels)}-{config.output}"


def _dual(config: ImageTextConfig, assets_dir: Path, device: str) -> DualEncoder:
    folder = _dual_folder(config, assets_dir)
    if towers := read_towers(folder):
        image, text = (build_encoder(tower, assets_dir, device) for tower in (towers.image, towers.text))
        return AlignedDual(image, text, AlignmentHead.load(folder))
    return PretrainedDual(
        folder,
        max_length=config.max_length,
        max_pixels=config.max_pixels,
        batch_size=config.batch_size,
        device=device,
    )


def _dual_folder(config: ImageTextConfig, assets_dir: Path) -> Path:
    if config.towers is not None:
        raise ConfigError(
            "the alignment head of these towers has not been fitted",
            where="encoder.towers",
            mend="`kcm run` fits it; name the folder of the fitted head as `model`",
        )
    return resolve(config.model, assets_dir)
