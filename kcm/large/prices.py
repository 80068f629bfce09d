"""Prices of large models by name: the packaged list, and a file in which users correct and extend it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, TypeAlias

import yaml

from kcm.errors import ConfigError
from kcm.user_folder import user_folder

Prices: TypeAlias = Mapping[str, tuple[float, float]]
"""Dollars per million tokens read and written, by model name."""

_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{4,8}|latest)$")


def listed_prices() -> Prices:
    """All known prices. Prices in the user's own list win: `prices.yaml` in the user's folder.

    Raises ConfigError if that file is not a list of prices; a line reads `gpt-4o: [2.50, 10.00]`.
    """
    prices = _parse(files("kcm.large").joinpath("prices.yaml").read_text("utf-8"), "prices.yaml")
    path = user_folder() / "prices.yaml"
    return prices | _parse(path.read_text("utf-8"), str(path)) if path.is_file() else prices


def price_of(model: str, prices: Prices) -> tuple[float, float] | None:
    """The price of a model; None if it is not listed.

    A listed name also stands for its versions, whose names end with a date or `-latest`, and for names with a
    provider's prefix: `openai/gpt-4o-mini-2024-07-18` costs what `gpt-4o-mini` does, unless it is listed itself.
    """
    names = [model, model.rpartition("/")[2]]
    names += [_DATED.sub("", name) for name in names]
    return next((prices[name] for name in names if name in prices), None)


def _parse(text: str, where: str) -> dict[str, tuple[float, float]]:
    try:
        content: Any = yaml.safe_load(text) or {}
        return {
            str(name): (float(input_price), float(output_price))
            for name, (input_price, output_price) in content.items()
        }
    except (yaml.YAMLError, AttributeError, TypeError, ValueError):
        hint = "Write a line per model, dollars per million tokens read and written, as gpt-4o: [2.50, 10.00]"
        raise ConfigError("not a list of prices", where=where, hint=hint) from None
