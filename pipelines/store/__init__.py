"""Artefacts, manifests, checkpoints and locks."""
