"""A trained cascade in one folder, and answering with it."""
