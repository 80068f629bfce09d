"""A trained cascade in one folder, and answering with it."""

MANIFEST = "bundle.json"  # of the folder; here, since commands look for it before they load a bundle
