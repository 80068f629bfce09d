"""The list of known components for `kcm components`, with the packages that register them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from kcm.components import FAMILIES, KnownComponent


def known_components() -> dict[str, list[dict[str, Any]]]:
    """The known components of every family, as JSON."""
    return {name: [asdict(component) for component in family.known()] for name, family in FAMILIES.items()}


def components_view() -> Table:
    """The same as a table."""
    table = Table(box=None, pad_edge=False, caption="One of your own is named by package.module:Class.")
    for column in ("family", "key", "tag", "from", "class"):
        table.add_column(column, no_wrap=True)
    for name, family in FAMILIES.items():
        for row, component in enumerate(family.known()):
            first = (name, family.tag) if row == 0 else ("", "")
            table.add_row(*first, component.tag, _origin(component), component.path)
    return table


def _origin(component: KnownComponent) -> str:
    return f"{component.package} {component.version}" if component.package else "built in"
