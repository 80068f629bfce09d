"""Where in a reply its label is: the whole reply, a field of JSON, a line, or the first words."""

from __future__ import annotations

import re

from pydantic import Field
from pydantic_core import from_json

from kcm.config import Config
from kcm.large.prompts import matching_label

WHOLE, FIRST_LINE, LAST_LINE, FIRST_WORDS = "whole", "first line", "last line", "first words"
FIELD = "field "  # before the path of a field
_MARKS = " \t\r\n\"'`*_.,;:!"
_FENCE = re.compile(r"^```\w*\n(.*?)\n?```$", re.DOTALL)
_BREAK = re.compile(r"[\n(]| - | – | — |: |\. ")  # between a label and its explanation
_PLACE = rf"^(?s:{WHOLE}|{FIRST_LINE}|{LAST_LINE}|{FIRST_WORDS}|{FIELD}.+)$"
_DEPTH = 3


class ReplyReading(Config):
    """How to read the label in a reply of a template."""

    place: str = Field(
        WHOLE, pattern=_PLACE, description="whole, first line, last line, first words, or field and the path of a field"
    )
    before: str = Field("", description="what replies say before that")
    after: str = Field("", description="what replies say after that")

    @property
    def field(self) -> str | None:
        """The field of JSON that holds the label; None if the label is not in a field."""
        return self.place.removeprefix(FIELD) if self.place.startswith(FIELD) else None

    def value(self, reply: str) -> str | None:
        """What stands at the place of the label; None if the reply has no such place."""
        if self.field is not None:
            value = leaves(reply).get(self.field)
            return None if value is None else bare(str(value))
        inner = reply.removeprefix(self.before).removesuffix(self.after)
        if self.place == FIRST_WORDS:
            inner = _BREAK.split(inner.strip(), maxsplit=1)[0]
        elif self.place != WHOLE:
            inner = _line(inner, 0 if self.place == FIRST_LINE else -1)
        return bare(inner)

    def label(self, reply: str, names: tuple[str, ...]) -> str | None:
        """The one of the labels `names` that a reply gives; None if it gives none of them."""
        value = self.value(reply)
        code = None if value is None else matching_label(value, names)
        return None if code is None else names[code]


def bare(reply: str) -> str:
    """A reply without white space, quotes and marks around it, and without a fence of code."""
    text = reply.strip()
    fenced = _FENCE.match(text)
    return " ".join((fenced[1] if fenced else text).strip(_MARKS).split())


def leaves(reply: str) -> dict[str, object]:
    """Texts, numbers and booleans of a JSON object, by the path of their keys; empty for another reply."""
    text = reply.strip()
    fenced = _FENCE.match(text)
    text = fenced[1].strip() if fenced else text
    if not text.startswith("{"):
        return {}
    try:
        return _leaves(from_json(text))
    except ValueError:
        return {}


def _leaves(value: object, prefix: str = "", depth: int = _DEPTH) -> dict[str, object]:
    if not isinstance(value, dict) or depth == 0:
        return {}
    values: dict[str, object] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            values |= _leaves(inner, f"{prefix}{key}.", depth - 1)
        elif isinstance(inner, str | int | float | bool):
            values[f"{prefix}{key}"] = inner
    return values


def _line(reply: str, position: int) -> str:
    lines = [line for line in reply.splitlines() if line.strip()]
    return lines[position] if lines else ""
