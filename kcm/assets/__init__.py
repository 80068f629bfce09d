"""From the name of a model to a folder whose files are verified: a local folder, an asset, or the hub."""
