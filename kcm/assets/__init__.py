"""From the name of a model to a folder whose files are verified: a local folder, a fetched asset, or the hub."""

from kcm.assets.manifest import is_intact
from kcm.assets.resolve import resolve

__all__ = ["is_intact", "resolve"]
