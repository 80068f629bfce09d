"""From the name of a model to a folder whose files are verified: a local folder, a fetched asset, or the hub."""

from kcm.assets.digest import folder_digest
from kcm.assets.manifest import is_intact
from kcm.assets.resolve import default_assets, resolve

__all__ = ["default_assets", "folder_digest", "is_intact", "resolve"]
