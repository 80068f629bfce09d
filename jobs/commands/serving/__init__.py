"""Serving on a cluster, until it is interrupted."""
