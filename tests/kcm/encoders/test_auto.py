"""Several encoders: what they must have in common, and that none of them is one before a run has chosen."""

from pathlib import Path

import pytest

from kcm.components import FAMILIES
from kcm.config import parse_config
from kcm.encoders.auto import AutoEncoderConfig
from kcm.encoders.pixels import PixelsConfig
from kcm.errors import ConfigError

SMALL, LARGE = PixelsConfig(side=4), PixelsConfig(side=8)


def test_it_reads_what_its_candidates_read_and_is_found_by_its_kind() -> None:
    assert FAMILIES["encoder"].find("auto") is AutoEncoderConfig
    auto = AutoEncoderConfig(candidates=(SMALL, LARGE))
    assert auto.reads == SMALL.reads
    assert auto.choices == (SMALL, LARGE)
    assert SMALL.choices == ()


def test_the_chosen_one_is_known_by_its_identity(tmp_path: Path) -> None:
    auto = AutoEncoderConfig(candidates=(SMALL, LARGE))
    assert auto.with_identity(LARGE.identity(tmp_path), tmp_path) == LARGE
    with pytest.raises(ConfigError, match="no candidate is the encoder"):
        auto.with_identity(PixelsConfig(side=16).identity(tmp_path), tmp_path)


@pytest.mark.parametrize("ask", [AutoEncoderConfig.load, AutoEncoderConfig.identity, AutoEncoderConfig.build])
def test_before_the_choice_it_is_no_encoder(ask, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chosen for the small side by a run"):
        ask(AutoEncoderConfig(candidates=(SMALL, LARGE)), tmp_path)


PICTURES = {"kind": "pixels"}


@pytest.mark.parametrize(
    ("candidates", "fault"),
    [
        ([PICTURES], "at least 2"),
        ([PICTURES, {"model": "m"}], "have to read the same parts"),
        ([{"kind": "precomputed", "column": "v"}] * 2, "of kind 'precomputed' cannot be a candidate"),
        ([{"kind": "image_text", "model": "m"}] * 2, "of kind 'image_text' cannot be a candidate"),
        ([{"kind": "auto", "candidates": [PICTURES] * 2}] * 2, "of kind 'auto' cannot be a candidate"),
    ],
)
def test_what_cannot_be_compared_is_refused(candidates, fault) -> None:
    with pytest.raises(ConfigError, match=fault):
        parse_config(AutoEncoderConfig, {"kind": "auto", "candidates": candidates}, where="encoder")
