"""HTML and SVG that is escaped by construction: only what this module built passes through as it is."""

from __future__ import annotations

from html import escape


class Html(str):
    """Markup that is safe to insert; every other string is text and gets escaped."""

    __slots__ = ()


def element(tag: str, *children: str | None, **attributes: str | float | None) -> Html:
    """`<tag attributes>children</tag>`; a None among children or attributes is left out.

    Attribute names are written as Python allows: `class_` is `class`, `stroke_width` is `stroke-width`.
    `tag` and the names are code, never data; children and values are data and get escaped.
    """
    pairs = (f' {_name(name)}="{escape(_value(value))}"' for name, value in attributes.items() if value is not None)
    opening = f"<{tag}{''.join(pairs)}>"
    return Html(opening if tag in _VOID else f"{opening}{join(*children)}</{tag}>")


def join(*parts: str | None) -> Html:
    """Markup one after another; plain strings are escaped, None is left out."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts if part is not None))


_VOID = frozenset({"br", "hr", "link", "meta"})


def _name(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
