"""A trained cascade in one folder, and answering with it."""

MANIFEST = "bundle.json"  # defined here, because commands look for it before they load a bundle
