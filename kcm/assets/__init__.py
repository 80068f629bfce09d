"""From the name of a model to a folder whose files are verified: a local folder, an asset, or the hub."""

from kcm.assets.manifest import folder_digest, is_intact, weights_sha256
from kcm.assets.resolve import (
    AssetsFolder,
    assets_folder,
    assets_place,
    default_assets,
    find_asset,
    resolve,
    user_assets,
)
from kcm.assets.trusted_paths import BundleName, require_may_open

__all__ = [
    "AssetsFolder",
    "BundleName",
    "assets_folder",
    "assets_place",
    "default_assets",
    "find_asset",
    "folder_digest",
    "is_intact",
    "require_may_open",
    "resolve",
    "user_assets",
    "weights_sha256",
]
